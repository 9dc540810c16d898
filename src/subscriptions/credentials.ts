import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { credentialUuid } from '../protocols/credential.ts';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';

// Given credentials. No two links of one protocol may have credentials that its proxy takes for the same user. So
// the credential of a subscription is nobody else's, and the credential of one link is nobody else's on its
// protocol. Core does not compare them with derived ones: those are 122 random bits that Core shows to one user.

/** A credential for a subscription, or for one of its links. */
export interface GivenCredential {
  /** Undefined while the subscription does not exist. */
  subscriptionId?: number | undefined;
  /** Undefined if the credential is that of all links of the subscription. */
  nodeProtocolId?: number | undefined;
  credential: string;
}

/** Who has a credential already. */
export interface CredentialOwner {
  subscriptionId: number;
  /** Null if it is the credential of all links of that subscription. */
  nodeProtocolId: number | null;
}

/**
 * Take it before comparing given credentials and storing them. Of two transactions that store the same
 * credential at the same time, neither would see the other's.
 */
export async function lockCredentials(client: pg.PoolClient): Promise<void> {
  await lockUntilCommit(client, advisoryLocks.credentials);
}

/** Columns of the tables subscriptions and subscription_links, as parallel lists. */
export function credentialColumns(
  given: readonly (string | null | undefined)[],
): [credentials: (string | null)[], uuids: (string | null)[]] {
  const texts = given.map((credential) => credential ?? null);
  return [texts, texts.map((text) => (text === null ? null : credentialUuid(text)))];
}

/** What two credentials have in common if they may be one user of a proxy. Postgres derives the same. */
export function credentialKey(credential: string): Buffer {
  const bytes = Buffer.from(credentialUuid(credential).replaceAll('-', ''), 'hex');
  return Buffer.concat([bytes.subarray(0, 6), bytes.subarray(8)]);
}

/** Of the given credentials that somebody else has, who that is, by their place in the list. */
export async function findCredentialOwners(
  client: pg.PoolClient,
  given: readonly GivenCredential[],
): Promise<Map<number, CredentialOwner>> {
  if (given.length === 0) return new Map();
  const { rows } = await client.query<CredentialOwner & { at: number }>(
    `WITH given AS MATERIALIZED (
       SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
         AS given (key, subscription_id, node_protocol_id, at)
     )
     SELECT g.at, s.id AS "subscriptionId", NULL::bigint AS "nodeProtocolId"
     FROM given g JOIN subscriptions s ON s.credential_key = g.key
     WHERE s.id IS DISTINCT FROM g.subscription_id
     UNION ALL
     SELECT g.at, l.subscription_id, l.node_protocol_id
     FROM given g JOIN subscription_links l ON l.credential_key = g.key
     WHERE l.subscription_id IS DISTINCT FROM g.subscription_id
       AND (g.node_protocol_id IS NULL OR l.node_protocol_id = g.node_protocol_id)`,
    [
      given.map((one) => credentialKey(one.credential)),
      given.map((one) => one.subscriptionId ?? null),
      given.map((one) => one.nodeProtocolId ?? null),
    ],
  );
  return new Map(rows.map(({ at, ...owner }) => [at - 1, owner]));
}

/** The words for an owner, like `that of subscription 7`. */
export function ownerText({ subscriptionId, nodeProtocolId }: CredentialOwner): string {
  const whose = `that of subscription ${subscriptionId}`;
  return nodeProtocolId === null ? whose : `${whose} on protocol ${nodeProtocolId}`;
}

/**
 * Checks that nobody else has the credential. The caller holds the lock of the credentials.
 * @throws CoreError INVALID_ARGUMENT naming who has it.
 */
export async function requireOwnCredential(
  client: pg.PoolClient,
  given: GivenCredential,
): Promise<void> {
  const owner = (await findCredentialOwners(client, [given])).get(0);
  if (owner === undefined) return;
  const whose =
    given.subscriptionId === undefined
      ? 'the new subscription'
      : `subscription ${given.subscriptionId}`;
  throw new CoreError(
    'INVALID_ARGUMENT',
    `The credential for ${whose} is ${ownerText(owner)}, and proxies may take both for one user. Give another one, or rotate that of subscription ${owner.subscriptionId}`,
  );
}
