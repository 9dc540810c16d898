import type pg from 'pg';
import { changesChannel } from './channels.ts';

/** Causes that Core keeps between two revisions of a node. All further ones become `and more`. */
const causesMax = 10;

/**
 * Marks nodes whose configuration may have changed. Call it in the transaction of the change.
 *
 * A mark is only a request. A worker renders each marked node and publishes a new revision if the
 * bytes differ, at most once a second for each node (publish/publish.ts).
 *
 * It locks the rows in the order of their ids, so that no two callers wait for each other. The locks
 * last until the transaction ends, so a render that sees the mark sees the change, too.
 * @param cause For people who read a node's history of revisions, like `protocol 7 added`.
 */
export async function bumpNodes(
  client: pg.PoolClient,
  nodeIds: readonly number[],
  cause: string,
): Promise<void> {
  await markChanged(client, nodeIds, cause, false);
}

/**
 * Marks a node whose own settings changed (a protocol, an outbound, a rule, those of Xray). This also ends a
 * rollback, by an operator or by Core: the worker renders the next revision from the settings that are
 * stored now.
 */
export async function bumpSettings(
  client: pg.PoolClient,
  nodeId: number,
  cause: string,
): Promise<void> {
  await markChanged(client, [nodeId], cause, true);
}

async function markChanged(
  client: pg.PoolClient,
  nodeIds: readonly number[],
  cause: string,
  endsRollback: boolean,
): Promise<void> {
  if (nodeIds.length === 0) return;
  await client.query(
    `WITH locked AS MATERIALIZED (
       SELECT id FROM nodes WHERE id = ANY ($1::integer[]) ORDER BY id FOR NO KEY UPDATE
     ), marked AS (
       UPDATE nodes SET
         change_seq = change_seq + 1,
         changed_at = CASE WHEN change_seq > published_seq THEN changed_at
           ELSE clock_timestamp() END,
         change_causes = CASE
           WHEN $2 = ANY (change_causes) OR cardinality(change_causes) > $3 THEN change_causes
           WHEN cardinality(change_causes) = $3 THEN change_causes || 'and more'::text
           ELSE change_causes || $2::text END,
         pinned_revision = CASE WHEN $4 THEN NULL ELSE pinned_revision END,
         pinned_settings_hash = CASE WHEN $4 THEN NULL ELSE pinned_settings_hash END,
         settings_seq = CASE WHEN $4 THEN change_seq + 1 ELSE settings_seq END,
         faulty_at = CASE WHEN $4 THEN NULL ELSE faulty_at END,
         faulty_revision = CASE WHEN $4 THEN NULL ELSE faulty_revision END,
         faulty_message = CASE WHEN $4 THEN NULL ELSE faulty_message END,
         faulty_code = CASE WHEN $4 THEN NULL ELSE faulty_code END,
         faulty_again_at = CASE WHEN $4 THEN NULL ELSE faulty_again_at END
       FROM locked WHERE nodes.id = locked.id
       RETURNING nodes.id
     )
     SELECT pg_notify($5, '') FROM marked LIMIT 1`,
    [nodeIds, cause, causesMax, endsRollback, changesChannel],
  );
}
