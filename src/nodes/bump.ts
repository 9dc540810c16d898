import type pg from 'pg';
import { changesChannel } from '../stores/listen.ts';

/** Distinct causes that are kept between two revisions of a node; further ones are `and more`. */
const causesMax = 10;

/**
 * Says that what these nodes should run may have changed, and why: `cause` is for people who read a
 * node's history of revisions, like `protocol 7 added`. Call it in the transaction of the change. It only marks: a worker renders the node, and only where its bytes differ it gets a
 * new revision, at most one a second (render/publish.ts).
 *
 * The rows are locked in the order of their ids, so that no two callers wait for each other, and
 * stay locked until the transaction ends: a render that sees the mark sees the change, too.
 */
export async function bumpNodes(
  client: pg.PoolClient,
  nodeIds: readonly number[],
  cause: string,
): Promise<void> {
  await markChanged(client, nodeIds, cause, false);
}

/**
 * The same for a change of a node's own settings (a protocol, an outbound, a rule), which also ends
 * a rollback: the next revision is rendered from the settings that are stored now.
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
  unpin: boolean,
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
         pinned_settings_hash = CASE WHEN $4 THEN NULL ELSE pinned_settings_hash END
       FROM locked WHERE nodes.id = locked.id
       RETURNING nodes.id
     )
     SELECT pg_notify($5, '') FROM marked LIMIT 1`,
    [nodeIds, cause, causesMax, unpin, changesChannel],
  );
}
