import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { Lifecycle } from '../../src/lifecycle.ts';
import { createLogger, type Logger } from '../../src/log.ts';
import { bumpNodes } from '../../src/nodes/bump.ts';
import { createHeartbeats } from '../../src/nodes/heartbeat.ts';
import { startPublisher } from '../../src/publish/publisher.ts';
import { createPool, inTransaction } from '../../src/stores/postgres.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured } from './metric.ts';

const clientsPerNode = 10;
/** As many connections as a worker's publisher has. */
const publisherConnections = 4;
const publishMsMax = 600_000;
const pollMs = 50;
const beatEveryMs = 1_000;

/**
 * How long one change that touches every node takes until every node has its next revision. Each
 * node has a VLESS inbound and ten clients. All nodes send a heartbeat a second meanwhile, and
 * writing these must not wait for the rendering.
 */
export async function measureRepublish(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  const { nodes, signal } = options;
  const log = createLogger('error');
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: false });
    options.say(`publishing ${nodes} nodes, twice`);
    await fill(core.pool, nodes);
    startPublishing(lifecycle, core, log);
    const firstSeconds = await untilPublished(core.pool, performance.now(), signal);
    const heartbeats = startBeating(core.pool, log, nodes);
    lifecycle.use('heartbeats', async () => void (await heartbeats.stop()));
    const startedAtMs = performance.now();
    await cutOff(core.pool);
    const againSeconds = await untilPublished(core.pool, startedAtMs, signal);
    const longestMs = await heartbeats.stop();
    const base = { bench: 'republish', better: 'lower' } as const;
    const of = `${nodes} nodes of ${clientsPerNode} clients`;
    const beats = 'heartbeats of all nodes written meanwhile, longest';
    measured.metrics.push(
      { ...base, name: `first revision of ${of}`, value: firstSeconds, unit: 's' },
      { ...base, name: `next revision of ${of}`, value: againSeconds, unit: 's' },
      { ...base, name: beats, value: longestMs, unit: 'ms' },
    );
  } finally {
    await lifecycle.close();
  }
  return measured;
}

/** A worker's publisher, in this process. */
function startPublishing(lifecycle: Lifecycle, { config, redis }: BenchCore, log: Logger): void {
  const { postgresUrl, redisPrefix } = config.stores;
  const pool = createPool(postgresUrl, { max: publisherConnections });
  lifecycle.use('publisher postgres client', () => pool.end());
  const publisher = startPublisher({
    pool,
    redis,
    prefix: redisPrefix,
    databaseUrl: postgresUrl,
    log,
  });
  lifecycle.use('publisher', () => publisher.close());
}

/** Cuts off one subscription, which has a link on every node. */
async function cutOff(pool: pg.Pool): Promise<void> {
  await inTransaction(pool, async (client) => {
    await client.query("UPDATE subscriptions SET status = 'limited' WHERE id = 1");
    const { rows } = await client.query<{ id: number }>('SELECT id FROM nodes');
    const ids = rows.map((row) => row.id);
    await bumpNodes(client, ids, 'subscription 1 limited');
  });
}

async function fill(pool: pg.Pool, nodes: number): Promise<void> {
  await pool.query("INSERT INTO users (name) VALUES ('bench')");
  await pool.query(
    'INSERT INTO subscriptions (user_id) SELECT 1 FROM generate_series(1, $1::integer)',
    [clientsPerNode],
  );
  await pool.query(
    `INSERT INTO nodes (name, host, change_seq, changed_at)
     SELECT 'bench-' || n, 'h', 1, now() FROM generate_series(1, $1::integer) AS n`,
    [nodes],
  );
  await pool.query(
    `INSERT INTO node_protocols (node_id, protocol, port) SELECT id, 'VLESS', 443 FROM nodes`,
  );
  await pool.query(
    `INSERT INTO protocol_groups (group_id, node_protocol_id)
     SELECT g.id, p.id FROM groups g CROSS JOIN node_protocols p WHERE g.name = 'default'`,
  );
  await pool.query(
    `INSERT INTO subscription_groups (group_id, subscription_id)
     SELECT g.id, s.id FROM groups g CROSS JOIN subscriptions s WHERE g.name = 'default'`,
  );
  await pool.query('ANALYZE');
}

async function untilPublished(
  pool: pg.Pool,
  startedAtMs: number,
  signal: AbortSignal,
): Promise<number> {
  const deadlineMs = startedAtMs + publishMsMax;
  while (performance.now() < deadlineMs) {
    signal.throwIfAborted();
    const { rows } = await pool.query<{ waits: boolean }>(
      'SELECT EXISTS (SELECT FROM nodes WHERE change_seq > published_seq) AS waits',
    );
    if (rows[0]?.waits === false) return (performance.now() - startedAtMs) / 1_000;
    await delay(pollMs);
  }
  throw new Error('not all nodes were published within ten minutes');
}

/** Writes a heartbeat of each node a second. `stop` returns the longest write in ms. */
function startBeating(pool: pg.Pool, log: Logger, nodes: number): { stop(): Promise<number> } {
  let msMax = 0;
  let stopped = false;
  const beat = async (): Promise<void> => {
    while (!stopped) {
      const heartbeats = createHeartbeats({ pool, log, intervalMs: 60_000, nowMs: Date.now });
      for (let nodeId = 1; nodeId <= nodes; nodeId += 1) heartbeats.seen(nodeId, undefined, 1);
      const startedAtMs = performance.now();
      await heartbeats.close();
      const tookMs = performance.now() - startedAtMs;
      msMax = Math.max(msMax, tookMs);
      await delay(Math.max(0, beatEveryMs - tookMs));
    }
  };
  const beating = beat();
  return {
    async stop() {
      stopped = true;
      await beating;
      return Math.round(msMax);
    },
  };
}
