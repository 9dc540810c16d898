import type pg from 'pg';
import { CoreError } from '../errors.ts';

/** A link with a UUID from the import file, because client apps of the user hold this UUID already. */
export interface GivenLink {
  nodeProtocolId: number;
  /** In lower case, with dashes. */
  uuid: string;
}

/**
 * Creates a table, on this connection only, of the UUIDs that one pass over the file has seen. A file
 * may hold millions, so they are not kept in memory. Postgres drops the table with the transaction or
 * with the connection.
 */
export async function createSeenUuids(
  client: pg.PoolClient,
  until: 'commit' | 'disconnect',
): Promise<void> {
  await client.query(
    `CREATE TEMPORARY TABLE import_uuids (uuid uuid PRIMARY KEY, line bigint NOT NULL)
     ON COMMIT ${until === 'commit' ? 'DROP' : 'PRESERVE ROWS'}`,
  );
}

/**
 * What is wrong with the links of these lines, by line number. A protocol may not exist, or its node may be
 * revoked. A UUID may be in use, or an earlier line of the file may have it. This adds the UUIDs to the
 * table, so pass every line once per pass, in the order of the file.
 */
export async function faultsOfLinks(
  client: pg.PoolClient,
  lines: readonly { line: number; links: readonly GivenLink[] }[],
): Promise<Map<number, string>> {
  const given = lines.flatMap(({ line, links }) => links.map((link) => ({ line, ...link })));
  const faults = new Map<number, string>();
  if (given.length === 0) return faults;
  const columns = [given.map((link) => link.uuid), given.map((link) => link.line)];
  await client.query(
    `INSERT INTO import_uuids
     SELECT uuid, min(line) FROM unnest($1::uuid[], $2::bigint[]) AS given (uuid, line)
     GROUP BY uuid ON CONFLICT DO NOTHING`,
    columns,
  );
  const { rows } = await client.query<{
    line: number;
    nodeProtocolId: number;
    firstLine: number;
    isKnown: boolean;
  }>(
    `SELECT given.line, given.node_protocol_id AS "nodeProtocolId", met.line AS "firstLine",
       p.id IS NOT NULL AS "isKnown"
     FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
       AS given (uuid, line, node_protocol_id, at)
     JOIN import_uuids met ON met.uuid = given.uuid
     LEFT JOIN subscription_links l ON l.uuid = given.uuid
     LEFT JOIN (node_protocols p JOIN nodes n ON n.id = p.node_id AND n.revoked_at IS NULL)
       ON p.id = given.node_protocol_id
     WHERE met.line <> given.line OR l.uuid IS NOT NULL OR p.id IS NULL
     ORDER BY given.at DESC`,
    [...columns, given.map((link) => link.nodeProtocolId)],
  );
  // The rows come last to first, so that the first fault of a line is the one that stays.
  for (const { line, nodeProtocolId, firstLine, isKnown } of rows) {
    let fault = 'the UUID is in use already';
    if (!isKnown) fault = `there is no protocol ${nodeProtocolId}`;
    else if (firstLine !== line) fault = `the UUID is that of a link on line ${firstLine}`;
    faults.set(line, `link_${nodeProtocolId}: ${fault}`);
  }
  return faults;
}

/**
 * Adds a link from each of these subscriptions to each of the protocols. A link without a given UUID
 * gets a new one.
 * @returns how many links were added.
 * @throws CoreError INVALID_ARGUMENT if somebody else has taken a given UUID since it was checked.
 */
export async function addLinks(
  client: pg.PoolClient,
  subscriptions: readonly { subscriptionId: number; links: readonly GivenLink[] }[],
  nodeProtocolIds: readonly number[],
): Promise<number> {
  const given = subscriptions.flatMap(({ subscriptionId, links }) =>
    links.map((link) => ({ subscriptionId, ...link })),
  );
  try {
    // Written in the order of their UUIDs, so that neighbours in the index are written together.
    const { rowCount } = await client.query(
      `INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id)
       SELECT coalesce(given.uuid, gen_random_uuid()) AS uuid, s, p
       FROM unnest($1::bigint[]) AS s CROSS JOIN unnest($2::bigint[]) AS p
       LEFT JOIN unnest($3::bigint[], $4::bigint[], $5::uuid[])
         AS given (subscription_id, node_protocol_id, uuid)
         ON given.subscription_id = s AND given.node_protocol_id = p
       ORDER BY 1`,
      [
        subscriptions.map((row) => row.subscriptionId),
        nodeProtocolIds,
        given.map((link) => link.subscriptionId),
        given.map((link) => link.nodeProtocolId),
        given.map((link) => link.uuid),
      ],
    );
    return rowCount ?? 0;
  } catch (cause) {
    if ((cause as { constraint?: string }).constraint !== 'subscription_links_pkey') throw cause;
    const message = 'A UUID of the file came into use during the import; nothing was imported';
    throw new CoreError('INVALID_ARGUMENT', message, { cause });
  }
}
