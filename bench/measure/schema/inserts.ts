import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import chdb, { type Session } from 'chdb';
import { usageColumns, usageRow } from '../../../src/rows/pack.ts';
import { median } from '../statistics.ts';
import { type Shape, usageBlocks } from './rows.ts';
import { createTable, type Variant } from './variants.ts';

export interface VariantCost {
  name: string;
  /** Everything on disk after all merges: data, marks, primary key, index, projections. */
  bytesPerRow: number;
  /** The rate of the median INSERT statement. */
  insertRowsPerSecond: number;
  /** Seconds of CPU a million rows that the engine's process spends in INSERT statements. */
  insertCpuSeconds: number;
  mergeCpuSeconds: number;
}

interface RowFile {
  file: string;
  rows: number;
}

const rowType =
  'node_id UInt32, node_protocol_id UInt64, user_id UInt64, subscription_id UInt64, ' +
  "bytes_up UInt64, bytes_down UInt64, recorded_at DateTime('UTC'), segment UInt64";

/** One thread and one block a file, so that every variant inserts the same parts. */
const sessionSettings = [
  ...['max_threads = 1', 'max_insert_threads = 1', 'input_format_parallel_parsing = 0'],
  ...['max_block_size = 16777216', 'max_insert_block_size = 16777216'],
  ...['min_insert_block_size_rows = 1048576', 'min_insert_block_size_bytes = 0'],
];

/** Writes the rows of a shape once, then inserts the same files into a table for each variant. */
export async function measureVariants(
  shape: Shape,
  variants: readonly Variant[],
  options: { rows: number; insertRows: number; signal: AbortSignal },
): Promise<VariantCost[]> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'core-storage-'));
  const session = new chdb.Session(path.join(folder, 'data'));
  try {
    const files: RowFile[] = [];
    for (const block of usageBlocks(shape, options.rows, options.insertRows)) {
      const file = path.join(folder, `rows-${files.length}`);
      writeFileSync(file, block);
      files.push({ file, rows: block.length / usageRow.length });
    }
    await session.queryAsync(`SET ${sessionSettings.join(', ')}`);
    const found: VariantCost[] = [];
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

/** @throws Error if the table does not hold every row in the end. */
async function measureVariant(
  session: Session,
  variant: Variant,
  files: readonly RowFile[],
): Promise<VariantCost> {
  const rows = files.reduce((sum, file) => sum + file.rows, 0);
  await session.queryAsync('DROP TABLE IF EXISTS usage SYNC');
  await session.queryAsync(createTable('usage', variant));
  await session.queryAsync('SYSTEM STOP MERGES');
  const msPerRow: number[] = [];
  const cpuBefore = process.cpuUsage();
  for (const file of files) {
    const startedMs = performance.now();
    await session.queryAsync(insertStatement(file.file));
    msPerRow.push((performance.now() - startedMs) / file.rows);
  }
  const insertCpu = process.cpuUsage(cpuBefore);
  const mergeBefore = process.cpuUsage();
  await session.queryAsync('SYSTEM START MERGES');
  await session.queryAsync('OPTIMIZE TABLE usage FINAL');
  const mergeCpu = process.cpuUsage(mergeBefore);
  const answer = await session.queryAsync(
    `SELECT toFloat64(sum(bytes_on_disk)) AS bytes, toFloat64(sum(rows)) AS rows
     FROM system.parts WHERE table = 'usage' AND active`,
    { format: 'JSONEachRow' },
  );
  const onDisk = JSON.parse(answer.text()) as { bytes: number; rows: number };
  if (onDisk.rows !== rows) throw new Error(`${variant.name}: ${onDisk.rows} rows of ${rows}`);
  const perMillion = (usage: NodeJS.CpuUsage): number => (usage.user + usage.system) / rows;
  return {
    name: variant.name,
    bytesPerRow: onDisk.bytes / rows,
    insertRowsPerSecond: 1_000 / median(msPerRow),
    insertCpuSeconds: perMillion(insertCpu),
    mergeCpuSeconds: perMillion(mergeCpu),
  };
}

function insertStatement(file: string): string {
  const type = rowType.replaceAll("'", "\\'");
  return `INSERT INTO usage (${usageColumns.join(', ')}) SELECT * FROM file('${file}', 'RowBinary', '${type}')`;
}
