import { Lifecycle } from '../../src/lifecycle.ts';
import { compressContent, renderContent } from '../../src/publish/content.ts';
import { readNodeRows } from '../../src/publish/read-rows.ts';
import type { NodeRows } from '../../src/render/node-rows.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured, type Target } from './metric.ts';
import { median } from './statistics.ts';
import { type BenchWorld, createBenchWorld } from './world.ts';
import { runWrk } from './wrk.ts';

const clientsWanted = 100_000;
const clientsWantedQuick = 5_000;
const renderMsMax = 300;
const servedGigabytesMin = 1;
const notModifiedMin = 20_000;
/** Each answer has megabytes. More connections would only fill the socket buffers. */
const bulkConnections = 4;
const rendersARound = 3;

/**
 * What a node with 100,000 clients costs, by Core's own functions. The figure with the target is rendering:
 * from rows to the configuration's bytes and their hash. The first rendering in a process has a figure of
 * its own, since nothing is compiled yet. Other figures are reading the rows, compressing, serving the
 * cached configuration uncompressed, and 304s.
 */
export async function measureConfig(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  const clients = options.quick ? clientsWantedQuick : clientsWanted;
  const push = (name: string, value: number, unit: string, target?: Target): void => {
    const better = unit === 'ms' ? ('lower' as const) : ('higher' as const);
    const base = { bench: 'config' as const, name, value, unit, better };
    measured.metrics.push(target === undefined ? base : { ...base, target });
  };
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: false });
    options.say(`creating a node with ${clients} clients`);
    const world = await createBenchWorld(core.pool, core.config, {
      nodes: 1,
      subscriptions: clients,
    });
    await linkAll(core, world);
    options.say('rendering');
    const times = await timeRenders(core, world, options.rounds * rendersARound);
    push(`rendering ${clients} clients`, times.renderMs, 'ms', { max: renderMsMax });
    push('rendering, the first time in a process', times.firstRenderMs, 'ms');
    push('reading their rows from Postgres', times.readMs, 'ms');
    push('compressing', times.compressMs, 'ms');
    await measureServing(core, world, options, measured, push);
  } finally {
    await lifecycle.close();
  }
  return measured;
}

async function linkAll(core: BenchCore, world: BenchWorld): Promise<void> {
  await core.pool.query(
    `INSERT INTO protocol_groups (group_id, node_protocol_id)
     SELECT id, $1 FROM groups WHERE name = 'default'`,
    [world.nodeProtocolIds[0]],
  );
  await core.pool.query(
    `INSERT INTO subscription_groups (group_id, subscription_id)
     SELECT g.id, s.id FROM groups g CROSS JOIN subscriptions s WHERE g.name = 'default'`,
  );
  await core.pool.query('ANALYZE protocol_groups, subscription_groups');
}

async function timeRenders(core: BenchCore, world: BenchWorld, turns: number) {
  const found = { readMs: [] as number[], renderMs: [] as number[], compressMs: [] as number[] };
  const timed = async <T>(into: number[], work: () => Promise<T> | T): Promise<T> => {
    const startedMs = performance.now();
    const result = await work();
    into.push(performance.now() - startedMs);
    return result;
  };
  const client = await core.pool.connect();
  try {
    for (let turn = 0; turn < turns; turn += 1) {
      const rows = (await timed(found.readMs, () =>
        readNodeRows(client, world.nodeIds[0] as number),
      )) as NodeRows;
      const content = await timed(found.renderMs, () => renderContent(rows));
      await timed(found.compressMs, () => compressContent(content, rows.node.revision));
    }
  } finally {
    client.release();
  }
  return {
    readMs: median(found.readMs),
    renderMs: median(found.renderMs),
    firstRenderMs: found.renderMs[0] as number,
    compressMs: median(found.compressMs),
  };
}

async function measureServing(
  core: BenchCore,
  world: BenchWorld,
  options: BenchOptions,
  measured: Measured,
  push: (name: string, value: number, unit: string, target?: Target) => void,
): Promise<void> {
  const headers = { 'x-node-auth-key': world.keys[0] as string };
  const startedMs = performance.now();
  const first = await fetch(`${core.url}/node/config/latest`, { headers });
  const bytes = (await first.arrayBuffer()).byteLength;
  push('the first answer, from Postgres to the last byte', performance.now() - startedMs, 'ms');
  push('size', bytes / 1e6, 'MB');
  const etag = first.headers.get('etag');
  if (first.status !== 200 || etag === null) throw new Error(`config answers ${first.status}`);

  const seconds = options.quick ? 2 : 8;
  const plan = { url: core.url, method: 'GET', path: '/node/config/latest', seed: 1 } as const;
  const keys = { header: 'x-node-auth-key', values: world.keys };
  const served: number[] = [];
  const notModified: number[] = [];
  for (let round = 1; round <= options.rounds; round += 1) {
    options.signal.throwIfAborted();
    options.say(`serving, round ${round}`);
    const whole = await runWrk({
      ...plan,
      keys,
      headers: {},
      connections: bulkConnections,
      seconds,
    });
    served.push((whole.ok * bytes) / whole.seconds / 1e9);
    const tagged = { 'if-none-match': etag };
    const { connections } = options;
    const not = await runWrk({ ...plan, keys, headers: tagged, connections, seconds });
    notModified.push(not.ok / not.seconds);
    measured.checks.push({
      bench: 'config',
      name: `round ${round}: whole configs, and 304s without a body`,
      passed: whole.refused + whole.lost + not.refused + not.lost === 0 && not.bytes < not.ok * 500,
      detail: `${whole.ok} of ${bytes} bytes, ${not.ok} answers of ${Math.round(not.bytes / not.ok)} bytes`,
    });
  }
  push('served from cache', median(served), 'GB/s', { min: servedGigabytesMin });
  push('304', median(notModified), 'requests/s', { min: notModifiedMin });
}
