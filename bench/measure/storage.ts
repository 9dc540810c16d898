import { setTimeout } from 'node:timers/promises';
import { Lifecycle } from '../../src/lifecycle.ts';
import { registerNode } from '../../src/nodes/registration.ts';
import { clickhouseDatabase } from '../../src/stores/clickhouse.ts';
import { buildUsage } from '../../test/harness/simulator/bodies.ts';
import { eachBounded } from '../../test/harness/simulator/each.ts';
import { createRandom, nodeSeed, type Random } from '../../test/harness/simulator/random.ts';
import { createWorld, type FleetNode } from '../../test/harness/simulator/world.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured } from './metric.ts';
import { checkSettled, untilDrained } from './standing.ts';

const rowsWanted = 5_000_000;
const rowsWantedQuick = 100_000;
const fleet = { nodes: 200, users: 20_000, nodesPerUser: 2 };
const fleetQuick = { nodes: 20, users: 1_000, nodesPerUser: 2 };
const postsAtOnceMax = 8;
const entriesMax = 10_000;
const drainMsMax = 300_000;
const rowBytesMax = 10;
const mergesMax = 60;

/**
 * Bytes on disk of a usage row after merges. The fleet simulator makes the rows
 * (test/harness/simulator/bodies.ts): every minute each node reports its active users. The rows go
 * through Core, so their segment ids are those that the worker gives. Each month becomes one part.
 */
export async function measureStorage(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: true });
    const sent = await postFleet(core, options);
    options.say('draining');
    const { appendedRows } = await untilDrained(core, drainMsMax);
    measured.checks.push(
      {
        bench: 'storage',
        name: 'rows appended',
        passed: appendedRows === sent,
        detail: `${sent} rows acked, ${appendedRows} appended`,
      },
      ...(await checkSettled('storage', core, appendedRows, { everyRowCounts: false })),
    );
    options.say('merging');
    await mergeAll(core, options.signal);
    await report(core, appendedRows, measured);
  } finally {
    await lifecycle.close();
  }
  return measured;
}

/** Posts minute after minute of the whole fleet until there are enough rows. Returns their number. */
async function postFleet(core: BenchCore, options: BenchOptions): Promise<number> {
  const size = options.quick ? fleetQuick : fleet;
  options.say(`creating ${size.nodes} nodes and ${size.users} users`);
  const { nodes } = await createWorld(core.pool, core.config, size);
  const senders = new Map<FleetNode, { authKey: string; random: Random }>();
  for (const node of nodes) {
    const { authKey } = await registerNode(core.pool, node);
    senders.set(node, { authKey, random: createRandom(nodeSeed(1, node.index)) });
  }
  const wanted = options.quick ? rowsWantedQuick : rowsWanted;
  const minuteMs = 60_000;
  // The last minute is about now. The simulator's late posts are up to six weeks older.
  let atMs = Math.floor(Date.now() / minuteMs - minutesWanted(nodes, wanted)) * minuteMs;
  let rows = 0;
  for (let minute = 1; rows < wanted; minute += 1) {
    options.signal.throwIfAborted();
    await eachBounded(nodes, postsAtOnceMax, async (node, index) => {
      const { authKey, random } = senders.get(node) as { authKey: string; random: Random };
      const built = buildUsage(node, random, {
        atMs: atMs + index * 7,
        entries: undefined,
        entriesMax,
      });
      await post(core, authKey, JSON.stringify(built.body));
      rows += built.rows;
    });
    atMs += minuteMs;
    if (minute % 20 === 0) options.say(`minute ${minute}: ${rows} rows`);
  }
  return rows;
}

/** An estimate: about two thirds of a node's members are active in a minute. */
function minutesWanted(nodes: readonly FleetNode[], rows: number): number {
  const members = nodes.reduce((sum, node) => sum + node.members.length, 0);
  return rows / (members * 0.65);
}

async function post(core: BenchCore, authKey: string, body: string): Promise<void> {
  const response = await fetch(`${core.url}/node/usage`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-node-auth-key': authKey },
    body,
  });
  const answer = await response.text();
  if (response.status !== 200) throw new Error(`Core answers ${response.status}: ${answer}`);
}

/**
 * Merges until each month is one part. OPTIMIZE silently skips a month if some of its parts have no
 * rollups yet, or if ClickHouse is merging some of them already. So it is repeated.
 */
async function mergeAll({ clickhouse }: BenchCore, signal: AbortSignal): Promise<void> {
  for (let merge = 0; merge < mergesMax; merge += 1) {
    signal.throwIfAborted();
    for (const rollup of ['hourly_subscriptions', 'hourly_nodes']) {
      await clickhouse.command({
        query: `ALTER TABLE usage MATERIALIZE PROJECTION ${rollup}`,
        clickhouse_settings: { mutations_sync: '2' },
      });
    }
    await clickhouse.command({ query: 'OPTIMIZE TABLE usage FINAL' });
    const result = await clickhouse.query({
      query: `SELECT count() - uniqExact(partition) AS more FROM system.parts
        WHERE active AND database = currentDatabase() AND table = 'usage'`,
      format: 'JSONEachRow',
    });
    const [parts] = await result.json<{ more: number }>();
    if (parts?.more === 0) return;
    await setTimeout(1_000, undefined, { signal });
  }
  throw new Error(`usage is not one part a month after ${mergesMax} times OPTIMIZE`);
}

interface ColumnBytes {
  column: string;
  bytes: number;
}

/** Counts all parts and columns of the table. Projections count too, since they are on disk. */
async function report(core: BenchCore, rows: number, measured: Measured): Promise<void> {
  const query_params = { database: clickhouseDatabase(core.config.stores.clickhouseUrl) };
  const ask = async <T>(query: string): Promise<T[]> =>
    (await core.clickhouse.query({ query, query_params, format: 'JSONEachRow' })).json<T>();
  const [parts] = await ask<{ bytes: number; parts: number; rows: number }>(
    `SELECT sum(bytes_on_disk) AS bytes, count() AS parts, sum(rows) AS rows FROM system.parts
     WHERE active AND database = {database:String} AND table = 'usage'`,
  );
  const columns = await ask<ColumnBytes>(
    `SELECT column, sum(column_data_compressed_bytes) AS bytes FROM system.parts_columns
     WHERE active AND database = {database:String} AND table = 'usage'
     GROUP BY column ORDER BY bytes DESC, column`,
  );
  const base = { bench: 'storage', unit: 'bytes a row', better: 'lower' } as const;
  const found = parts ?? { bytes: 0, parts: 0, rows: 0 };
  measured.metrics.push({
    ...base,
    name: 'a usage row on disk, all of it',
    value: found.bytes / rows,
    target: { max: rowBytesMax },
  });
  for (const { column, bytes } of columns) {
    // A part of under 10 MB keeps all columns in one file, and ClickHouse reports 0 for each.
    if (bytes === 0) continue;
    measured.metrics.push({ ...base, name: `column ${column}`, value: bytes / rows });
  }
  const inColumns = columns.reduce((sum, { bytes }) => sum + bytes, 0);
  measured.metrics.push({
    ...base,
    name: 'marks, indexes, parts too small to tell columns apart',
    value: (found.bytes - inColumns) / rows,
  });
  measured.metrics.push(
    { bench: 'storage', name: 'rows', value: rows, unit: 'rows', better: 'none' },
    { bench: 'storage', name: 'parts', value: found.parts, unit: 'parts', better: 'none' },
  );
}
