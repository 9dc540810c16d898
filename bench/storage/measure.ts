import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import chdb, { type Session } from 'chdb';
import { usageColumns, usageRow } from '../../src/rows/pack.ts';
import type { Shape } from './rows.ts';
import { usageBlocks } from './rows.ts';
import { createTable, type Variant } from './variants.ts';

export interface Measured {
  name: string;
  rows: number;
  /** Everything on disk after all merges: data, marks, primary key, index, projection. */
  bytesPerRow: number;
  columns: Record<string, number>;
  projectionBytesPerRow: number;
  insertRowsPerSecond: number;
  /** Seconds of CPU a million rows, of the engine's process, in INSERT statements. */
  insertCpuSeconds: number;
  mergeCpuSeconds: number;
}

const rowType =
  "node_id UInt32, node_protocol_id UInt64, user_id UInt64, subscription_id UInt64, bytes_up UInt64, bytes_down UInt64, recorded_at DateTime('UTC'), segment UInt64";

/** Writes the rows of a shape once, then inserts the same files into a table for each variant. */
export async function measureVariants(
  shape: Shape,
  variants: readonly Variant[],
  options: { rows: number; insertRows: number; signal: AbortSignal },
): Promise<Measured[]> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'core-storage-'));
  const session = new chdb.Session(path.join(folder, 'data'));
  try {
    const files: { file: string; rows: number }[] = [];
    for (const block of usageBlocks(shape, options.rows, options.insertRows)) {
      const file = path.join(folder, `rows-${files.length}`);
      writeFileSync(file, block);
      files.push({ file, rows: block.length / usageRow.length });
    }
    await session.queryAsync(
      'SET max_threads = 1, max_insert_threads = 1, max_block_size = 16777216, min_insert_block_size_rows = 1048576, min_insert_block_size_bytes = 0, max_insert_block_size = 16777216, input_format_parallel_parsing = 0',
    );
    const found: Measured[] = [];
    for (const variant of variants) {
      options.signal.throwIfAborted();
      found.push(await measureVariant(session, variant, files));
    }
    return found;
  } finally {
    session.close();
    await chdb.drainPending();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureVariant(
  session: Session,
  variant: Variant,
  files: readonly { file: string; rows: number }[],
): Promise<Measured> {
  const rows = files.reduce((sum, { rows }) => sum + rows, 0);
  await session.queryAsync('DROP TABLE IF EXISTS usage SYNC');
  await session.queryAsync(createTable('usage', variant));
  await session.queryAsync('SYSTEM STOP MERGES');
  const insertMs: number[] = [];
  const cpuBefore = process.cpuUsage();
  for (const { file, rows: fileRows } of files) {
    const startedMs = performance.now();
    await session.queryAsync(
      `INSERT INTO usage (${usageColumns.join(', ')}) SELECT * FROM file('${file}', 'RowBinary', '${rowType.replaceAll("'", "\\'")}')`,
    );
    insertMs.push((performance.now() - startedMs) / fileRows);
  }
  const insertCpu = process.cpuUsage(cpuBefore);
  const mergeBefore = process.cpuUsage();
  await session.queryAsync('SYSTEM START MERGES');
  await session.queryAsync('OPTIMIZE TABLE usage FINAL');
  const mergeCpu = process.cpuUsage(mergeBefore);
  const json = async <T>(sql: string): Promise<T[]> =>
    (await session.queryAsync(sql, { format: 'JSONEachRow' }))
      .text()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as T);
  const [whole] = await json<{ bytes: number; rows: number; projections: number }>(
    `SELECT toFloat64(sum(bytes_on_disk)) AS bytes, toFloat64(sum(rows)) AS rows FROM system.parts WHERE table = 'usage' AND active`,
  );
  const [projection] = await json<{ bytes: number }>(
    `SELECT toFloat64(sum(bytes_on_disk)) AS bytes FROM system.projection_parts WHERE table = 'usage' AND active`,
  );
  const columns = await json<{ column: string; bytes: number }>(
    `SELECT column, toFloat64(sum(column_data_compressed_bytes)) AS bytes FROM system.parts_columns WHERE table = 'usage' AND active GROUP BY column`,
  );
  if (whole?.rows !== rows) throw new Error(`${variant.name}: ${whole?.rows} rows of ${rows}`);
  const perMillion = (usage: NodeJS.CpuUsage): number => (usage.user + usage.system) / rows;
  insertMs.sort((a, b) => a - b);
  return {
    name: variant.name,
    rows,
    bytesPerRow: whole.bytes / rows,
    columns: Object.fromEntries(columns.map((one) => [one.column, one.bytes / rows])),
    projectionBytesPerRow: (projection?.bytes ?? 0) / rows,
    insertRowsPerSecond: 1_000 / (insertMs[insertMs.length >> 1] ?? Number.NaN),
    insertCpuSeconds: perMillion(insertCpu),
    mergeCpuSeconds: perMillion(mergeCpu),
  };
}
