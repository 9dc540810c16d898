import { packUsage, usageColumns, usageRow } from '../../src/rows/pack.ts';
import { type ClickHouseClient, writePart } from '../../src/stores/clickhouse.ts';

/** Packed rows with their segment's id: 20 subscriptions by turns, each with a row a minute. */
export function usageRows(fromMs: number, segment: bigint, count: number): Buffer {
  const block = packUsage(
    7,
    Array.from({ length: count }, (_, index) => ({
      userId: 1 + (index % 20),
      subscriptionId: 1 + (index % 20),
      nodeProtocolId: 1 + (index % 3),
      bytesUp: index * 1_000,
      bytesDown: 2 ** 53 - 1 - index,
      recordedAt: fromMs + Math.floor(index / 20) * 60_000,
    })),
  );
  for (let at = usageRow.segment; at < block.length; at += usageRow.length) {
    block.writeBigUInt64LE(segment, at);
  }
  return block;
}

export function insertUsage(
  clickhouse: ClickHouseClient,
  rows: Buffer,
  token: string,
): Promise<void> {
  return writePart(clickhouse, {
    table: 'usage',
    columns: usageColumns,
    token,
    format: 'RowBinary',
    bytes: rows,
  });
}

export async function ask(
  clickhouse: ClickHouseClient,
  query: string,
): Promise<Record<string, unknown>[]> {
  return (await clickhouse.query({ query, format: 'JSONEachRow' })).json();
}

/** The query that the rollup `hourly_nodes` answers. */
export const hourlyNodes = `SELECT toStartOfHour(recorded_at) AS hour, node_id, node_protocol_id,
  toString(sum(bytes_up)) AS up, toString(sum(bytes_down)) AS down, count() AS rows
  FROM usage GROUP BY hour, node_id, node_protocol_id ORDER BY hour, node_id, node_protocol_id`;
/** Appended to a query, makes ClickHouse answer it from the rows alone. */
export const noRollup = ' SETTINGS optimize_use_projections = 0';
