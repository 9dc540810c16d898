import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { linkUuid } from '../render/link-uuid.ts';
import {
  credentialColumns,
  credentialKey,
  findCredentialOwners,
  type GivenCredential,
  ownerText,
} from './credentials.ts';

/** A link with a credential from the import file, because client apps of the user hold it already. */
export interface GivenLink {
  nodeProtocolId: number;
  /** Any text. */
  credential: string;
}

/** What a line gives, as far as credentials and groups are concerned. */
export interface CheckedLine {
  line: number;
  /** Of all links of the subscription. */
  credential: string | null | undefined;
  links: readonly GivenLink[];
  groupIds: readonly number[];
}

/**
 * Creates a table, on this connection only, of the credentials that one pass over the file has seen. A file
 * may hold millions, so they are not kept in memory. Postgres drops the table with the transaction or
 * with the connection.
 */
export async function createSeenCredentials(
  client: pg.PoolClient,
  until: 'commit' | 'disconnect',
): Promise<void> {
  // A credential of a whole subscription has the protocol 0.
  await client.query(
    `CREATE TEMPORARY TABLE import_credentials (key bytea, node_protocol_id bigint, line bigint NOT NULL,
       PRIMARY KEY (key, node_protocol_id))
     ON COMMIT ${until === 'commit' ? 'DROP' : 'PRESERVE ROWS'}`,
  );
}

type LineCredential = GivenCredential & { line: number };

/**
 * What is wrong with the credentials of these lines, by line number. A protocol may not exist, its node may be
 * revoked, or the subscription may be in none of its groups. A credential may be somebody's already, or an
 * earlier line of the file may have it. This adds the credentials to the table, so pass every line once per
 * pass, in the order of the file.
 */
export async function faultsOfCredentials(
  client: pg.PoolClient,
  lines: readonly CheckedLine[],
): Promise<Map<number, string>> {
  const given = lines.flatMap(({ line, credential, links }): LineCredential[] => [
    ...(typeof credential === 'string' ? [{ line, credential }] : []),
    ...links.map((link) => ({ line, ...link })),
  ]);
  const faults = new Map<number, string>();
  if (given.length === 0) return faults;
  const unlinked = await findUnlinked(client, lines);
  const earlier = await findEarlierLines(client, given);
  const owners = await findCredentialOwners(client, given);
  for (const [at, { line, nodeProtocolId }] of given.entries()) {
    if (faults.has(line)) continue;
    const column = nodeProtocolId === undefined ? 'credential' : `link_${nodeProtocolId}`;
    const [owner, firstLine] = [owners.get(at), earlier.get(at)];
    let fault = unlinked.get(`${line}/${nodeProtocolId}`);
    if (fault === undefined && firstLine !== undefined) {
      fault = `the credential is that of line ${firstLine}, or a proxy would take it for that`;
    }
    if (fault === undefined && owner !== undefined) {
      fault = `the credential is ${ownerText(owner)}, or a proxy would take it for that`;
    }
    if (fault !== undefined) faults.set(line, `${column}: ${fault}`);
  }
  return faults;
}

/** The faults of links that the subscriptions would not have, by line and protocol. */
async function findUnlinked(
  client: pg.PoolClient,
  lines: readonly CheckedLine[],
): Promise<Map<string, string>> {
  const ids = new Set(lines.flatMap(({ links }) => links.map((link) => link.nodeProtocolId)));
  const { rows } = await client.query<{ id: number; groupIds: number[] }>(
    `SELECT p.id, array_agg(pg.group_id) AS "groupIds" FROM node_protocols p
     JOIN nodes n ON n.id = p.node_id AND n.revoked_at IS NULL
     LEFT JOIN protocol_groups pg ON pg.node_protocol_id = p.id
     WHERE p.id = ANY ($1::bigint[]) GROUP BY p.id`,
    [[...ids]],
  );
  const groupsOf = new Map(rows.map((row) => [row.id, new Set(row.groupIds)]));
  const faults = new Map<string, string>();
  for (const { line, links, groupIds } of lines) {
    for (const { nodeProtocolId } of links) {
      const groups = groupsOf.get(nodeProtocolId);
      const key = `${line}/${nodeProtocolId}`;
      if (groups === undefined) faults.set(key, `there is no protocol ${nodeProtocolId}`);
      else if (!groupIds.some((id) => groups.has(id))) {
        faults.set(key, `the subscription has none of the groups of protocol ${nodeProtocolId}`);
      }
    }
  }
  return faults;
}

/** The earlier lines that have the same credential, by the place in the list. */
async function findEarlierLines(
  client: pg.PoolClient,
  given: readonly LineCredential[],
): Promise<Map<number, number>> {
  const columns = [
    given.map((one) => credentialKey(one.credential)),
    given.map((one) => one.nodeProtocolId ?? 0),
    given.map((one) => one.line),
  ];
  await client.query(
    `INSERT INTO import_credentials
     SELECT key, protocol, min(line) FROM unnest($1::bytea[], $2::bigint[], $3::bigint[])
       AS given (key, protocol, line)
     GROUP BY key, protocol ON CONFLICT DO NOTHING`,
    columns,
  );
  const { rows } = await client.query<{ at: number; line: number }>(
    `SELECT given.at, min(met.line) AS line
     FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
       AS given (key, protocol, line, at)
     JOIN import_credentials met ON met.key = given.key
     WHERE met.line < given.line
       AND (met.node_protocol_id = given.protocol OR 0 IN (met.node_protocol_id, given.protocol))
     GROUP BY given.at`,
    columns,
  );
  return new Map(rows.map((row) => [row.at - 1, row.line]));
}

/**
 * Stores the links that have credentials from the file. All other links need no row.
 * @throws CoreError INVALID_ARGUMENT if somebody else has taken a credential since it was checked.
 */
export async function addGivenLinks(
  client: pg.PoolClient,
  subscriptions: readonly { subscriptionId: number; links: readonly GivenLink[] }[],
): Promise<void> {
  const given = subscriptions.flatMap(({ subscriptionId, links }) =>
    links.map((link) => ({ subscriptionId, ...link })),
  );
  if (given.length === 0) return;
  try {
    await client.query(
      `INSERT INTO subscription_links
         (uuid, subscription_id, node_protocol_id, credential, credential_uuid)
       SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::uuid[])`,
      [
        given.map((link) => linkUuid(link.subscriptionId, link.nodeProtocolId)),
        given.map((link) => link.subscriptionId),
        given.map((link) => link.nodeProtocolId),
        ...credentialColumns(given.map((link) => link.credential)),
      ],
    );
  } catch (cause) {
    const { constraint } = cause as { constraint?: string };
    if (constraint !== 'subscription_links_credential') throw cause;
    const message =
      'A credential of the file came into use during the import; nothing was imported';
    throw new CoreError('INVALID_ARGUMENT', message, { cause });
  }
}
