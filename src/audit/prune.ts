import type pg from 'pg';
import type { Queryable } from '../stores/postgres.ts';

/** Segments that may be deleted: they are old enough, and an audit found no difference. */
export interface Prunable {
  /** The segments after `afterId` and up to `upToId`. All of them were settled before `settledBefore`. */
  afterId: number;
  upToId: number;
  settledBefore: Date;
  /** Segments among them that stay: the comparison of a subscription needs their `settled_at`. */
  keptIds: ReadonlySet<number>;
}

/** The sums of all segments that were deleted so far. */
export interface Pruned {
  /** Segments up to this id are in the table `segments` or in these sums; 0 if none was deleted. */
  upToId: number;
  segments: number;
  usageRows: number;
  sessionRows: number;
}

/**
 * Segments that one transaction deletes. It takes tens of milliseconds, and the lock of an audit
 * waits for it.
 */
const batchSegments = 10_000;
/** The most batches after one audit; the rest is deleted after the next one. */
const batchesMax = 1_000;
/** If more ids than this are to be kept, nothing is deleted: each query names them all. */
const keptIdsMax = 100_000;

export async function readPruned(client: Queryable): Promise<Pruned> {
  const { rows } = await client.query<Pruned>(
    `SELECT coalesce(max(up_to_id), 0)::bigint AS "upToId",
       coalesce(sum(segments), 0)::bigint AS segments,
       coalesce(sum(usage_rows), 0)::bigint AS "usageRows",
       coalesce(sum(session_rows), 0)::bigint AS "sessionRows"
     FROM segment_prunings`,
  );
  return rows[0] ?? { upToId: 0, segments: 0, usageRows: 0, sessionRows: 0 };
}

/**
 * Reads, in an audit's snapshot, which segments may be deleted if the audit finds no difference. They end
 * before the first segment that is not settled or not old enough, so that no id among them can change.
 * Undefined if there are none.
 */
export async function readPrunable(
  client: pg.PoolClient,
  bounds: { afterId: number; maxId: number; keptDays: number },
): Promise<Omit<Prunable, 'keptIds'> | undefined> {
  const { afterId, maxId, keptDays } = bounds;
  const time = await client.query<{ settledBefore: Date }>(
    `SELECT date_trunc('milliseconds', now() - make_interval(days => $1)) AS "settledBefore"`,
    [keptDays],
  );
  const settledBefore = time.rows[0]?.settledBefore ?? new Date(0);
  const first = await client.query<{ id: number }>(
    `SELECT id FROM segments
     WHERE id > $1 AND (state <> 'settled' OR settled_at >= $2) ORDER BY id LIMIT 1`,
    [afterId, settledBefore],
  );
  const upToId = (first.rows[0]?.id ?? maxId + 1) - 1;
  return upToId > afterId ? { afterId, upToId, settledBefore } : undefined;
}

/**
 * Deletes segments after an audit without a difference, and adds them to the sums that later audits
 * compare instead. Each batch does both in one transaction, so a crash between batches leaves a part of
 * the segments deleted and summed up. It keeps segments with rejected rows, the last settled segment of
 * each stream, which trim needs, and `keptIds`.
 * @returns how many segments were deleted.
 */
export async function pruneSegments(
  pool: pg.Pool,
  prunable: Prunable,
  signal: AbortSignal,
): Promise<number> {
  const { upToId, settledBefore, keptIds } = prunable;
  if (keptIds.size > keptIdsMax) return 0;
  let { afterId } = prunable;
  let deleted = 0;
  for (let batch = 0; batch < batchesMax && afterId < upToId; batch += 1) {
    signal.throwIfAborted();
    const end = await pool.query<{ id: number | null; count: number }>(
      `SELECT max(id) AS id, count(*) AS count FROM
         (SELECT id FROM segments WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) AS page`,
      [afterId, upToId, batchSegments],
    );
    const { id, count = 0 } = end.rows[0] ?? {};
    if (count === 0 || typeof id !== 'number') return deleted;
    const kept = [...keptIds].filter((keptId) => keptId > afterId && keptId <= id);
    deleted += await pruneBatch(pool, { afterId, upToId: id, settledBefore, kept });
    afterId = id;
  }
  return deleted;
}

async function pruneBatch(
  pool: pg.Pool,
  batch: { afterId: number; upToId: number; settledBefore: Date; kept: readonly number[] },
): Promise<number> {
  const { rows } = await pool.query<{ count: number }>(
    `WITH gone AS (
       DELETE FROM segments s USING streams t
       WHERE t.stream = s.stream AND s.id > $1 AND s.id <= $2
         AND s.state = 'settled' AND s.settled_at < $3 AND s.rejected = 0 AND s.id <> ALL ($4::bigint[])
         AND EXISTS (SELECT FROM segments later
           WHERE later.stream = s.stream AND later.seq > s.seq AND later.state = 'settled')
       RETURNING t.kind, s.rows),
     summed AS (
       INSERT INTO segment_prunings AS p (settled_before, up_to_id, segments, usage_rows, session_rows)
       SELECT $3, $2, count(*), coalesce(sum(rows) FILTER (WHERE kind = 'usage'), 0),
         coalesce(sum(rows) FILTER (WHERE kind = 'session'), 0)
       FROM gone HAVING count(*) > 0
       ON CONFLICT (settled_before) DO UPDATE SET
         up_to_id = greatest(p.up_to_id, excluded.up_to_id),
         segments = p.segments + excluded.segments,
         usage_rows = p.usage_rows + excluded.usage_rows,
         session_rows = p.session_rows + excluded.session_rows)
     SELECT count(*) AS count FROM gone`,
    [batch.afterId, batch.upToId, batch.settledBefore, batch.kept],
  );
  return rows[0]?.count ?? 0;
}
