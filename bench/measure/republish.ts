import { Lifecycle } from '../../src/lifecycle.ts';
import { createLogger } from '../../src/log.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { run } from '../republish.ts';
import { startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured } from './metric.ts';

const clientsPerNode = 10;

/** One change that touches every node, while all of them send heartbeats: see bench/republish.ts. */
export async function measureRepublish(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: false });
    const { stores } = core.config;
    // Of the size that a worker's publisher has.
    const publishPool = createPool(stores.postgresUrl, { max: 4 });
    lifecycle.use('publisher postgres client', () => publishPool.end());
    options.say(`publishing ${options.nodes} nodes, twice`);
    const figures = await run({
      pool: core.pool,
      publishPool,
      redis: core.redis,
      prefix: stores.redisPrefix,
      databaseUrl: stores.postgresUrl,
      log: createLogger('error'),
      nodes: options.nodes,
      clientsPerNode,
      signal: options.signal,
    });
    const base = { bench: 'republish', better: 'lower' } as const;
    const of = `${figures.nodes} nodes of ${figures.clientsPerNode} clients`;
    measured.metrics.push(
      { ...base, name: `first revision of ${of}`, value: figures.firstSeconds, unit: 's' },
      { ...base, name: `next revision of ${of}`, value: figures.againSeconds, unit: 's' },
      {
        ...base,
        name: 'heartbeats of all nodes written meanwhile, longest',
        value: figures.heartbeatFlushMsMax,
        unit: 'ms',
      },
    );
  } finally {
    await lifecycle.close();
  }
  return measured;
}
