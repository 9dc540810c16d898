import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { projectRoot } from '../../src/root.ts';
import { usageColumns, usageRow } from '../../src/rows/pack.ts';
import { makeSecrets } from '../../src/secrets.ts';
import {
  type ClickHouseClient,
  createClickHouse,
  insertRows,
} from '../../src/stores/clickhouse.ts';
import { readMigrations } from '../../src/stores/migrate.ts';
import { untilMerged } from '../merges.ts';
import { type Shape, usageBlocks } from './rows.ts';

export interface InsertFigures {
  rows: number;
  /** Of the median insert, from the first byte sent to the answer: everything fsynced. */
  rowsPerSecond: number;
  /** CPU of the ClickHouse process a million rows: until the last answer, and until merged. */
  insertCpuSeconds: number;
  cpuSeconds: number;
  /** On disk once ClickHouse had nothing left to merge by itself. */
  bytesPerRow: number;
  parts: number;
}

/** How long ClickHouse is given to merge what it wants to merge. */
const mergeMsMax = 60_000;

/**
 * Inserts segments into a fresh embedded ClickHouse as the load worker does: over HTTP, RowBinary,
 * tokens, fsync. `migrations` is how many of the migrations are applied first.
 */
export async function measureInserts(
  shape: Shape,
  options: { segments: number; segmentRows: number; migrations: number },
): Promise<InsertFigures> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'core-storage-'));
  const { clickhouse: password } = makeSecrets(folder);
  const child = fork(
    path.join(projectRoot, 'dist', 'src', 'embedded', 'clickhouse', 'server.js'),
    ['--port', '0', '--data', folder, '--secrets', folder],
    { env: { ...process.env, UV_THREADPOOL_SIZE: '12' } },
  );
  const ended = once(child, 'exit');
  try {
    const [{ port }] = (await once(child, 'message')) as [{ port: number }];
    const clickhouse = createClickHouse(`http://core:${password}@127.0.0.1:${port}/core`);
    try {
      return await insertAll(clickhouse, child, shape, options);
    } finally {
      await clickhouse.close();
    }
  } finally {
    child.kill('SIGKILL');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}

async function insertAll(
  clickhouse: ClickHouseClient,
  child: ChildProcess,
  shape: Shape,
  options: { segments: number; segmentRows: number; migrations: number },
): Promise<InsertFigures> {
  for (const { sql } of (await readMigrations('clickhouse')).slice(0, options.migrations)) {
    for (const query of sql.split(/;\s*$/m).filter((one) => one.trim() !== '')) {
      await clickhouse.command({ query });
    }
  }
  const msPerRow: number[] = [];
  let rows = 0;
  const cpuStart = cpuSeconds(child);
  const wanted = options.segments * options.segmentRows;
  for (const block of usageBlocks(shape, wanted, options.segmentRows)) {
    const blockRows = block.length / usageRow.length;
    const startedMs = performance.now();
    await insertRows(clickhouse, {
      table: 'usage',
      columns: usageColumns,
      token: `bench-${rows}`,
      format: 'RowBinary',
      bytes: block,
    });
    msPerRow.push((performance.now() - startedMs) / blockRows);
    rows += blockRows;
  }
  const cpuInserted = cpuSeconds(child);
  await untilMerged(clickhouse, mergeMsMax);
  const cpuEnd = cpuSeconds(child);
  const [disk] = await ask<{ bytes: number; parts: number }>(
    clickhouse,
    `SELECT sum(bytes_on_disk) AS bytes, count() AS parts FROM system.parts
     WHERE database = 'core' AND table = 'usage' AND active`,
  );
  msPerRow.sort((a, b) => a - b);
  return {
    rows,
    rowsPerSecond: 1_000 / (msPerRow[msPerRow.length >> 1] ?? Number.NaN),
    insertCpuSeconds: ((cpuInserted - cpuStart) / rows) * 1e6,
    cpuSeconds: ((cpuEnd - cpuStart) / rows) * 1e6,
    bytesPerRow: (disk?.bytes ?? Number.NaN) / rows,
    parts: disk?.parts ?? 0,
  };
}

async function ask<T>(clickhouse: ClickHouseClient, query: string): Promise<T[]> {
  return (await clickhouse.query({ query, format: 'JSONEachRow' })).json<T>();
}

/** User and system time of a process since its start, of all its threads. */
function cpuSeconds(child: ChildProcess): number {
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
