import type { ClickHouseClient } from '../stores/clickhouse.ts';

const projectionName = /^\w+$/;

/**
 * Gives the rollups to parts of `usage` that a merge can no longer reach.
 *
 * ClickHouse merges only parts that are neighbours and have the same rollups. An insert's part has none,
 * and a merge of such parts makes them. Where a merge took the parts before one and another those after
 * it, as happens to a large part among small ones, that one has no neighbour left of its kind, and the
 * merged parts on either side are kept apart for good: there would be ever more parts, until ClickHouse
 * refuses inserts. So months with a part older than `ageSecondsMin` that lacks a rollup which a later
 * part has get all of them, by a mutation in the background; parts that have them are not written
 * again. Nothing is begun while a mutation of `usage` is unfinished. May run twice at once.
 *
 * Source: ClickHouse's setting materialize_projections_on_merge.
 * @returns the months (YYYYMM) it began with.
 * @throws what ClickHouse answers where it is away or refuses.
 */
export async function freeStrandedParts(
  clickhouse: ClickHouseClient,
  ageSecondsMin: number,
): Promise<string[]> {
  const result = await clickhouse.query({
    query: strandedQuery,
    query_params: { age: ageSecondsMin },
    format: 'JSONEachRow',
  });
  const months = await result.json<{ month: string; rollups: string[] }>();
  for (const { month, rollups } of months) {
    const commands = rollups
      .filter((rollup) => projectionName.test(rollup))
      .map((rollup) => `MATERIALIZE PROJECTION ${rollup} IN PARTITION ID {month:String}`);
    await clickhouse.command({
      query: `ALTER TABLE usage ${commands.join(', ')}`,
      query_params: { month },
      clickhouse_settings: { mutations_sync: '0' },
    });
  }
  return months.map(({ month }) => month);
}

const strandedQuery = `
  WITH
    (SELECT groupArray(name) FROM system.projections
     WHERE database = currentDatabase() AND table = 'usage') AS rollups,
    length(projections) < length(rollups) AS lacks
  SELECT partition_id AS month, rollups
  FROM system.parts
  WHERE database = currentDatabase() AND table = 'usage' AND active
    AND NOT EXISTS (SELECT 1 FROM system.mutations
      WHERE database = currentDatabase() AND table = 'usage' AND NOT is_done)
  GROUP BY partition_id
  HAVING countIf(lacks AND modification_time <= now() - {age:UInt32}) > 0
    AND minIf(min_block_number, lacks AND modification_time <= now() - {age:UInt32})
      < maxIf(min_block_number, NOT lacks)
  ORDER BY month`;
