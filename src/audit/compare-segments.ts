import type pg from 'pg';
import type { ClickHouseClient } from '../stores/clickhouse.ts';
import { addDifference, type Findings } from './difference.ts';
import type { Pruned } from './prune.ts';

const tables = { usage: 'usage', session: 'session_events' } as const;
type RowKind = keyof typeof tables;

/** How many segments are compared at a time. ClickHouse reads its column of segments for each page. */
const pageRows = 100_000;

export interface SegmentScope {
  /** The largest segment id in the snapshot. */
  maxId: number;
  /** Segments up to that id that are not settled; a stream has a few of them at most. */
  unsettledIds: ReadonlySet<number>;
  /** Compare only segments settled since then; null: all. */
  since: Date | null;
  /** The deleted segments. Core keeps only their sums. */
  pruned: Pruned;
}

interface Deps {
  client: pg.PoolClient;
  clickhouse: ClickHouseClient;
  signal: AbortSignal;
}

interface Page {
  afterId: number;
  upToId: number;
  expected: Map<number, number>;
}

/**
 * Compares the number of rows of each settled segment with what ClickHouse has of it. Without `since` it
 * also finds rows of segments that Postgres does not know, and compares the sum of the rows of all
 * deleted segments.
 * @returns how many segments were compared.
 */
export async function compareSegments(
  deps: Deps,
  scope: SegmentScope,
  findings: Findings,
): Promise<number> {
  let compared = 0;
  for (const kind of Object.keys(tables) as RowKind[]) {
    const isPruned = scope.since === null && scope.pruned.upToId > 0;
    if (isPruned) compared += await comparePruned(deps, kind, scope, findings);
    for (let afterId = isPruned ? scope.pruned.upToId : 0; afterId < scope.maxId; ) {
      deps.signal.throwIfAborted();
      const page = await readPage(deps.client, kind, afterId, scope);
      compared += page.expected.size;
      await comparePage(deps, kind, page, scope, findings);
      afterId = page.upToId;
    }
  }
  return compared;
}

async function readPage(
  client: pg.PoolClient,
  kind: RowKind,
  afterId: number,
  scope: SegmentScope,
): Promise<Page> {
  const { rows } = await client.query<{ id: number; rows: number }>(
    `SELECT s.id, s.rows - s.rejected AS rows FROM segments s JOIN streams t USING (stream)
     WHERE t.kind = $1 AND s.state = 'settled' AND s.id > $2 AND s.id <= $3
       AND ($4::timestamptz IS NULL OR s.settled_at >= $4)
     ORDER BY s.id LIMIT $5`,
    [kind, afterId, scope.maxId, scope.since, pageRows],
  );
  const last = rows.length < pageRows ? undefined : rows.at(-1)?.id;
  return {
    afterId,
    upToId: last ?? scope.maxId,
    expected: new Map(rows.map((row) => [row.id, row.rows])),
  };
}

async function comparePage(
  deps: { clickhouse: ClickHouseClient; signal: AbortSignal },
  kind: RowKind,
  page: Page,
  scope: SegmentScope,
  findings: Findings,
): Promise<void> {
  if (page.expected.size === 0 && scope.since !== null) return;
  const table = tables[kind];
  const [firstId] = page.expected.keys();
  const result = await deps.clickhouse.query({
    query: `SELECT segment, count() AS rows FROM ${table}
      WHERE segment > {after:UInt64} AND segment <= {upTo:UInt64} GROUP BY segment`,
    query_params: {
      // The ids ascend. Without `since` the range also covers the gap before the first one.
      after: scope.since === null || firstId === undefined ? page.afterId : firstId - 1,
      upTo: page.upToId,
    },
    format: 'JSONEachRow',
    // Without this a query that fails half-way looks like an answer that ends early.
    clickhouse_settings: { wait_end_of_query: 1 },
    abort_signal: deps.signal,
  });
  for await (const chunk of result.stream<{ segment: number; rows: number }>()) {
    for (const line of chunk) {
      const { segment, rows } = line.json();
      const expectedRows = page.expected.get(segment);
      if (expectedRows !== undefined) {
        page.expected.delete(segment);
        if (rows === expectedRows) continue;
        const about = { segmentId: segment, table, expectedRows, foundRows: rows };
        addDifference(findings, { what: 'segment', ...about });
      } else if (scope.since === null && !scope.unsettledIds.has(segment)) {
        const about = { segmentId: segment, table, expectedRows: 0, foundRows: rows } as const;
        addDifference(findings, { what: 'unknown-segment', ...about });
      }
    }
  }
  for (const [segmentId, expectedRows] of page.expected) {
    // Every row of this segment was rejected, so ClickHouse has none.
    if (expectedRows === 0) continue;
    addDifference(findings, { what: 'segment', segmentId, table, expectedRows, foundRows: 0 });
  }
}

/** How many of the kept segments one query asks for by their ids. */
const keptPageSegments = 5_000;

/**
 * Compares the range up to the last deleted segment: each segment that was kept, and the number of all
 * other rows. All ids in this range are used and settled, so nothing changes between the queries.
 * @returns how many kept segments were compared.
 */
async function comparePruned(
  { client, clickhouse, signal }: Deps,
  kind: RowKind,
  { pruned }: SegmentScope,
  findings: Findings,
): Promise<number> {
  const table = tables[kind];
  const { upToId } = pruned;
  let compared = 0;
  let keptRows = 0;
  for (let afterId = 0; ; ) {
    signal.throwIfAborted();
    const kept = await client.query<{ id: number; rows: number }>(
      `SELECT s.id, s.rows - s.rejected AS rows FROM segments s JOIN streams t USING (stream)
       WHERE t.kind = $1 AND s.id > $2 AND s.id <= $3 ORDER BY s.id LIMIT $4`,
      [kind, afterId, upToId, keptPageSegments],
    );
    const ids = kept.rows.map((segment) => segment.id);
    const lastId = ids.at(-1);
    if (lastId === undefined) break;
    const result = await clickhouse.query({
      query: `SELECT segment, count() AS rows FROM ${table}
        WHERE segment IN {ids:Array(UInt64)} GROUP BY segment`,
      query_params: { ids },
      format: 'JSONEachRow',
      clickhouse_settings: { wait_end_of_query: 1 },
      abort_signal: signal,
    });
    const counts = await result.json<{ segment: number; rows: number }>();
    const found = new Map(counts.map((count) => [count.segment, count.rows]));
    for (const { id: segmentId, rows: expectedRows } of kept.rows) {
      const foundRows = found.get(segmentId) ?? 0;
      keptRows += foundRows;
      if (foundRows === expectedRows) continue;
      addDifference(findings, { what: 'segment', segmentId, table, expectedRows, foundRows });
    }
    compared += ids.length;
    afterId = lastId;
  }
  const result = await clickhouse.query({
    query: `SELECT count() AS rows FROM ${table} WHERE segment <= {upTo:UInt64}`,
    query_params: { upTo: upToId },
    format: 'JSONEachRow',
    clickhouse_settings: { wait_end_of_query: 1 },
    abort_signal: signal,
  });
  const [all] = await result.json<{ rows: number }>();
  const foundRows = (all?.rows ?? 0) - keptRows;
  const expectedRows = kind === 'usage' ? pruned.usageRows : pruned.sessionRows;
  if (foundRows !== expectedRows) {
    addDifference(findings, { what: 'pruned-segments', upToId, table, expectedRows, foundRows });
  }
  return compared;
}
