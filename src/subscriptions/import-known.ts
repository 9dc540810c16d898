import type pg from 'pg';
import type { ImportedSubscription } from './imported.ts';

/** Creates a table, on this connection only, of the external ids that one pass over the file has seen. */
export async function createSeenExternalIds(
  client: pg.PoolClient,
  until: 'commit' | 'disconnect',
): Promise<void> {
  await client.query(
    `CREATE TEMPORARY TABLE import_external_ids (id text PRIMARY KEY, line bigint NOT NULL)
     ON COMMIT ${until === 'commit' ? 'DROP' : 'PRESERVE ROWS'}`,
  );
}

export type Known =
  | { is: 'new' }
  /** An earlier import has added it. */
  | { is: 'there'; subscriptionId: number; hasSameCredential: boolean }
  | { is: 'twice'; firstLine: number };

interface IdentifiedLine {
  line: number;
  subscription: ImportedSubscription;
}

/**
 * Says by their external ids which lines an earlier import has added, and which come twice in the file. This
 * adds the ids to the table, so pass every line once per pass, in the order of the file.
 */
export async function findKnown(
  client: pg.PoolClient,
  lines: readonly IdentifiedLine[],
): Promise<(line: IdentifiedLine) => Known> {
  const identified = lines.filter(({ subscription }) => subscription.externalId !== undefined);
  if (identified.length === 0) return () => ({ is: 'new' });
  const ids = identified.map(({ subscription }) => subscription.externalId);
  await client.query(
    `INSERT INTO import_external_ids SELECT id, min(line) FROM unnest($1::text[], $2::bigint[])
       AS given (id, line) GROUP BY id ON CONFLICT DO NOTHING`,
    [ids, identified.map(({ line }) => line)],
  );
  const seen = await client.query<{ id: string; line: number }>(
    'SELECT id, line FROM import_external_ids WHERE id = ANY ($1::text[])',
    [ids],
  );
  const firstLines = new Map(seen.rows.map((row) => [row.id, row.line]));
  const stored = await client.query<{ id: string; subscriptionId: number; credentials: string[] }>(
    `SELECT s.external_id AS id, s.id AS "subscriptionId", array_remove(array_append(
         array(SELECT l.credential FROM subscription_links l WHERE l.subscription_id = s.id),
         s.credential), NULL) AS credentials
     FROM subscriptions s WHERE s.external_id = ANY ($1::text[])`,
    [ids],
  );
  const there = new Map(stored.rows.map((row) => [row.id, row]));
  return ({ line, subscription }) => {
    const id = subscription.externalId ?? '';
    const firstLine = firstLines.get(id);
    if (firstLine !== undefined && firstLine !== line) return { is: 'twice', firstLine };
    const found = there.get(id);
    if (found === undefined) return { is: 'new' };
    const given = credentialsOf(subscription);
    const hasSameCredential =
      given.length === 0 ||
      found.credentials.length === 0 ||
      given.some((credential) => found.credentials.includes(credential));
    return { is: 'there', subscriptionId: found.subscriptionId, hasSameCredential };
  };
}

function credentialsOf({ credential, links = [] }: ImportedSubscription): string[] {
  const own = links.map((link) => link.credential);
  return typeof credential === 'string' ? [credential, ...own] : own;
}
