import { CoreError } from '../../errors.ts';
import type { PlacedRow } from '../../rows/single-rows.ts';
import { type ClickHouseClient, writePart } from '../../stores/clickhouse.ts';
import { dataRefusal } from './refusal.ts';

/** A row that ClickHouse refuses even if it is alone, and the reason that ClickHouse gives. */
export interface RefusedRow extends PlacedRow {
  reason: string;
}

/**
 * How many rows of one month of a segment Core sets aside by itself. If a table refuses more, probably
 * the table is wrong and not the rows: no row of that month is set aside, and the segment waits for an
 * operator.
 */
export const refusedRowsMax = 1_000;

interface TrialTarget {
  table: string;
  columns: readonly string[];
  segmentId: number;
  /** Lower in tests, because each row found takes two trial INSERTs. */
  refusedRowsMax?: number | undefined;
}

/** The trial table of a segment. After a crash, the next attempt drops it. */
export function trialTable(target: Pick<TrialTarget, 'table' | 'segmentId'>): string {
  return `${target.table}_trial_${target.segmentId}`;
}

/**
 * Finds the rows that ClickHouse refuses even if they are alone, by trying halves, then halves of
 * those. The rows go into a copy of the table that has its columns and constraints and stores nothing
 * (engine Null). So the search may be repeated, even while an insert into the real table still runs.
 *
 * ClickHouse has refused each of these rows alone, for its data. Any other failure ends the search.
 * @throws CoreError SEGMENT_REFUSED past `refusedRowsMax` rows; any other error of ClickHouse as it
 * is.
 */
export async function findRefusedRows(
  clickhouse: ClickHouseClient,
  target: TrialTarget,
  rows: readonly PlacedRow[],
): Promise<RefusedRow[]> {
  const trial = trialTable(target);
  await dropTrialTable(clickhouse, target);
  await clickhouse.command({ query: `CREATE TABLE ${trial} AS ${target.table} ENGINE = Null` });
  const { refusedRowsMax: rowsMax = refusedRowsMax } = target;
  const refused: RefusedRow[] = [];
  // At most 20 calls deep: a segment has less than 2^20 rows.
  const search = async (part: readonly PlacedRow[]): Promise<void> => {
    const reason = await tryRows(clickhouse, { ...target, table: trial }, part);
    if (reason === undefined) return;
    const [first] = part;
    if (part.length > 1 || first === undefined) {
      const middle = part.length >> 1;
      await search(part.slice(0, middle));
      await search(part.slice(middle));
      return;
    }
    refused.push({ ...first, reason });
    if (refused.length > rowsMax) {
      throw new CoreError(
        'SEGMENT_REFUSED',
        `ClickHouse refuses over ${rowsMax} rows of segment ${target.segmentId}: ${reason}`,
      );
    }
  };
  try {
    await search(rows);
  } finally {
    // A trial table that stays does no harm, and the failure that ended the search matters more.
    await dropTrialTable(clickhouse, target).catch(() => undefined);
  }
  return refused;
}

export async function dropTrialTable(
  clickhouse: ClickHouseClient,
  target: Pick<TrialTarget, 'table' | 'segmentId'>,
): Promise<void> {
  await clickhouse.command({ query: `DROP TABLE IF EXISTS ${trialTable(target)}` });
}

/** Why ClickHouse refuses these rows; undefined if it takes them. */
async function tryRows(
  clickhouse: ClickHouseClient,
  target: TrialTarget,
  rows: readonly PlacedRow[],
): Promise<string | undefined> {
  try {
    await writePart(clickhouse, {
      table: target.table,
      columns: target.columns,
      token: `trial-${target.segmentId}`,
      format: 'RowBinary',
      bytes: Buffer.concat(rows.map((row) => row.bytes)),
    });
    return undefined;
  } catch (thrown) {
    const reason = dataRefusal(thrown);
    if (reason === undefined) throw thrown;
    return reason;
  }
}
