import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { sessionColumns, usageColumns } from '../ingest/pack.ts';
import { type ClickHouseClient, insertRowBinary } from '../stores/clickhouse.ts';
import { type Partition, partitionRows } from './partition.ts';
import type { Segment } from './seal.ts';

const tables = {
  usage: { table: 'usage', columns: usageColumns, time: 'recorded_at' },
  session: { table: 'session_events', columns: sessionColumns, time: 'occurred_at' },
} as const;

/** Tokens tried for one partition; see insertMissing. */
const tokensMax = 4;

/**
 * Puts a segment's rows into ClickHouse, each month one INSERT.
 *
 * The attempt is counted and committed first. On any attempt but the first, rows of this segment
 * may be there already, wholly or by some months: they are counted, and only what is missing is
 * inserted. See ARCHITECTURE.md, "What a crash does".
 * @throws CoreError SEGMENT_ROWS_LOST where a month holds some but not all of its rows.
 */
export async function insertSegment(
  deps: { client: pg.PoolClient; clickhouse: ClickHouseClient },
  segment: Segment,
  kind: 'usage' | 'session',
  block: Buffer,
): Promise<void> {
  await deps.client.query('UPDATE segments SET attempts = attempts + 1 WHERE id = $1', [
    segment.id,
  ]);
  const partitions = partitionRows(kind, block, segment.id);
  if (segment.attempts === 0) {
    for (const partition of partitions) {
      await insertPartition(deps.clickhouse, kind, segment.id, partition, 0);
    }
    return;
  }
  const present = await countRows(deps.clickhouse, kind, segment.id);
  for (const partition of partitions) {
    if (isPresent(partition, present, segment)) continue;
    await insertMissing(deps.clickhouse, kind, segment, partition);
  }
}

/**
 * Inserts a partition that was counted as missing. Two things may be true of its token: an insert
 * with it is still running under a worker thought dead, and then the token makes one of the two a
 * no-op; or the token was logged and the rows were lost with a crash of ClickHouse, and then the
 * insert is answered as done and nothing is there. So the rows are counted after it, and only where
 * they are still missing the next token is tried. The tokens are the same for every worker.
 */
async function insertMissing(
  clickhouse: ClickHouseClient,
  kind: 'usage' | 'session',
  segment: Segment,
  partition: Partition,
): Promise<void> {
  for (let attempt = 0; attempt < tokensMax; attempt += 1) {
    await insertPartition(clickhouse, kind, segment.id, partition, attempt);
    if (isPresent(partition, await countRows(clickhouse, kind, segment.id), segment)) return;
  }
  throw new CoreError(
    'STORE_UNAVAILABLE',
    `ClickHouse took partition ${partition.yyyymm} of segment ${segment.id} but does not show it`,
  );
}

/**
 * Segment ids are never given twice, not even by a Postgres that was reset or restored
 * (migrate.ts), so the token is the segment's alone.
 */
async function insertPartition(
  clickhouse: ClickHouseClient,
  kind: 'usage' | 'session',
  segmentId: number,
  partition: Partition,
  attempt: number,
): Promise<void> {
  const { table, columns } = tables[kind];
  await insertRowBinary(clickhouse, {
    table,
    columns,
    token: `segment-${segmentId}-${partition.yyyymm}-${attempt}`,
    rows: partition.bytes,
  });
}

function isPresent(
  partition: Partition,
  present: ReadonlyMap<number, number>,
  segment: Segment,
): boolean {
  const rows = present.get(partition.yyyymm) ?? 0;
  if (rows === 0) return false;
  if (rows === partition.rows) return true;
  throw new CoreError(
    'SEGMENT_ROWS_LOST',
    `Segment ${segment.id} has ${rows} of ${partition.rows} rows in partition ${partition.yyyymm}`,
  );
}

async function countRows(
  clickhouse: ClickHouseClient,
  kind: 'usage' | 'session',
  segmentId: number,
): Promise<Map<number, number>> {
  const { table, time } = tables[kind];
  const result = await clickhouse.query({
    query: `SELECT toYYYYMM(${time}) AS yyyymm, count() AS rows FROM ${table}
      WHERE segment = {segment:UInt64} GROUP BY yyyymm`,
    query_params: { segment: segmentId },
    format: 'JSONEachRow',
  });
  const counts = await result.json<{ yyyymm: number; rows: number }>();
  return new Map(counts.map((count) => [count.yyyymm, count.rows]));
}
