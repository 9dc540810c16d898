import type { Redis } from 'ioredis';
import type pg from 'pg';
import { type PublishOutcome, publishDue } from '../../src/publish/publish.ts';

/**
 * Publishes every marked node at once, as a worker would do later, even if a node's last revision is
 * less than a second old.
 */
export async function publishNow(deps: {
  pool: pg.Pool;
  redis: Redis;
  prefix: string;
}): Promise<PublishOutcome> {
  await agePublished(deps.pool, 60);
  const { rows } = await deps.pool.query<{ id: number }>('SELECT id FROM nodes ORDER BY id');
  return publishDue(
    deps,
    rows.map((row) => row.id),
  );
}

/**
 * Makes every node's last revision and last failed render look older, so that a test need not wait. It locks the
 * rows in the order of their ids, as everybody does.
 */
export async function agePublished(pool: pg.Pool, seconds: number): Promise<void> {
  await pool.query(
    `WITH locked AS MATERIALIZED (SELECT id FROM nodes ORDER BY id FOR NO KEY UPDATE)
     UPDATE nodes SET published_at = clock_timestamp() - make_interval(secs => $1),
       publish_failed_at = publish_failed_at - make_interval(secs => $1)
     FROM locked WHERE nodes.id = locked.id`,
    [seconds],
  );
}

/** How many marks of a node no worker has published. */
export async function marksOf(pool: pg.Pool, nodeId: number): Promise<number> {
  const { rows } = await pool.query<{ marks: number }>(
    'SELECT change_seq - published_seq AS marks FROM nodes WHERE id = $1',
    [nodeId],
  );
  return Number(rows[0]?.marks);
}
