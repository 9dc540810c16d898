import type pg from 'pg';
import type { Queryable } from '../stores/postgres.ts';

/** How many pending nodes one call of `bumpPending` takes; the rest follow a second later. */
const pendingMax = 10_000;

/**
 * Says that what these nodes should run has changed. Call it in the transaction of the change.
 *
 * A node gets a new revision at most once a second: at once where its last one is over a second
 * old, else it is marked and the worker's `bumpPending` follows. The rows are locked in the order
 * of their ids, so that no two callers wait for each other, and stay locked until the transaction
 * ends: that is what keeps a bump from overtaking the change it announces.
 */
export async function bumpNodes(client: pg.PoolClient, nodeIds: readonly number[]): Promise<void> {
  if (nodeIds.length === 0) return;
  await client.query(
    `WITH locked AS MATERIALIZED (
       SELECT id, revision_bumped_at <= statement_timestamp() - interval '1 second' AS due
       FROM nodes WHERE id = ANY ($1::integer[]) ORDER BY id FOR NO KEY UPDATE
     ), bumped AS (
       UPDATE nodes SET
         revision = CASE WHEN due THEN revision + 1 ELSE revision END,
         revision_bumped_at = CASE WHEN due THEN statement_timestamp() ELSE revision_bumped_at END,
         revision_pending = NOT due
       FROM locked WHERE nodes.id = locked.id
       RETURNING nodes.id, due
     )
     SELECT pg_notify('core_nodes', id::text) FROM bumped WHERE due`,
    [nodeIds],
  );
}

/**
 * Bumps the nodes that a change marked less than a second after their last bump. The worker calls
 * it once a second. A node that a transaction holds just now is left for the next call.
 * @returns the ids of the nodes that have a new revision.
 */
export async function bumpPending(db: Queryable): Promise<number[]> {
  const { rows } = await db.query<{ id: number }>(
    `WITH due AS MATERIALIZED (
       SELECT id FROM nodes
       WHERE revision_pending AND revision_bumped_at <= statement_timestamp() - interval '1 second'
       ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
     ), bumped AS (
       UPDATE nodes SET revision = revision + 1, revision_bumped_at = statement_timestamp(),
         revision_pending = false
       FROM due WHERE nodes.id = due.id
       RETURNING nodes.id
     )
     SELECT id, pg_notify('core_nodes', id::text) FROM bumped`,
    [pendingMax],
  );
  return rows.map((row) => row.id);
}
