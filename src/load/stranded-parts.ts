import { sqlName } from '../clickhouse-sql.ts';
import type { ClickHouseClient } from '../stores/clickhouse.ts';

/**
 * Gives the rollups to parts of `usage` that a merge can no longer reach.
 *
 * ClickHouse merges only parts that are neighbours and have the same rollups. An insert's part has none,
 * and a merge of such parts makes them. Where a merge took the parts before one and another those after
 * it, as happens to a large part among small ones, that one has no neighbour left of its kind, and the
 * merged parts on either side are kept apart for good: there would be ever more parts, until ClickHouse
 * refuses inserts. So a month gets all rollups where at least `partsMin` parts, each older than
 * `ageSecondsMin`, lack one that a later part has. That is a mutation in the background, for which
 * ClickHouse reads the whole month, so it should not happen for every such part. Nothing is begun while
 * a mutation of `usage` is unfinished. May run twice at once.
 *
 * Source: ClickHouse's setting materialize_projections_on_merge.
 * @returns the months (YYYYMM) it began with.
 * @throws what ClickHouse answers where it is away or refuses.
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
