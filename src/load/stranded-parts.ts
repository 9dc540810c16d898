import { sqlName } from '../clickhouse-sql.ts';
import type { ClickHouseClient } from '../stores/clickhouse.ts';

/**
 * Makes the rollups of parts of `usage` that no merge can reach.
 *
 * ClickHouse merges only parts that are neighbours and have the same rollups. The part of an insert
 * has none, and a merge of such parts makes them. A large part among small ones may be left alone:
 * one merge takes the parts before it and another one those after it. Then it has no neighbour
 * without rollups, and it keeps the merged parts on its two sides apart for ever. With time there
 * would be so many parts that ClickHouse refuses inserts.
 *
 * So this makes all rollups of a month if at least `partsMin` of its parts, each older than
 * `ageSecondsMin`, lack a rollup that a later part has. ClickHouse does it in the background, as a
 * mutation that reads the whole month, so it should not happen for each such part. This begins
 * nothing while a mutation of `usage` is unfinished, and two workers may run it at once.
 *
 * Source: ClickHouse's setting materialize_projections_on_merge.
 * @returns the months (YYYYMM) that it began with.
 * @throws what ClickHouse answers if it is away or refuses.
 */
export async function freeStrandedParts(
  clickhouse: ClickHouseClient,
  { ageSecondsMin, partsMin }: { ageSecondsMin: number; partsMin: number },
): Promise<string[]> {
  const result = await clickhouse.query({
    query: strandedQuery,
    query_params: { ageSecondsMin, partsMin },
    format: 'JSONEachRow',
  });
  const months = await result.json<{ month: string; rollups: string[] }>();
  for (const { month, rollups } of months) {
    const commands = rollups.map(
      (rollup) => `MATERIALIZE PROJECTION ${sqlName(rollup)} IN PARTITION ID {month:String}`,
    );
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
    length(projections) < length(rollups) AS lacks,
    maxIf(min_block_number, NOT lacks) AS lastWhole
  SELECT partition_id AS month, rollups
  FROM system.parts
  WHERE database = currentDatabase() AND table = 'usage' AND active
    AND NOT EXISTS (SELECT 1 FROM system.mutations
      WHERE database = currentDatabase() AND table = 'usage' AND NOT is_done)
  GROUP BY partition_id
  HAVING arrayCount(
    block -> block < lastWhole,
    groupArrayIf(min_block_number, lacks AND modification_time <= now() - {ageSecondsMin:UInt32})
  ) >= {partsMin:UInt32}
  ORDER BY month`;
