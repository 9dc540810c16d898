import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { Lifecycle } from '../../src/lifecycle.ts';
import { countLinks } from '../../src/nodes/linked.ts';
import { changeSubscription } from '../../src/subscriptions/change.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured } from './metric.ts';
import { createProcessSampler } from './processes.ts';

const groups = 100;
const subscriptionsWanted = 100_000;
const subscriptionsWantedQuick = 2_000;
const publishMsMax = 3_600_000;
const pollMs = 50;

/**
 * A fleet in 100 groups: each node has a VLESS inbound in one group, and each subscription has one group. The
 * figures are what the memberships take in Postgres, how long a worker needs to publish every node, and how
 * long one change takes until its nodes have their revisions. The worker is a process as in operation.
 */
export async function measureGroups(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  const { nodes, signal } = options;
  const subscriptions = options.quick ? subscriptionsWantedQuick : subscriptionsWanted;
  const push = (name: string, value: number, unit: string, better: 'lower' | 'none' = 'lower') =>
    void measured.metrics.push({ bench: 'groups', name, value, unit, better });
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: false });
    options.say(`${subscriptions} subscriptions and ${nodes} nodes in ${groups} groups`);
    await fill(core.pool, nodes, subscriptions);
    const startedAtMs = performance.now();
    const { links } = await countLinks(core.pool);
    push('links', links, 'links', 'none');
    push('counting them', performance.now() - startedAtMs, 'ms');
    push('rows of memberships and links', await rowsOf(core.pool), 'rows');
    push('their bytes in Postgres', (await bytesOf(core.pool)) / 1e6, 'MB');
    options.say('publishing every node');
    const sampler = createProcessSampler(core.roots);
    sampler.start();
    const fromMs = performance.now();
    await core.startWorker();
    await untilPublished(core.pool, options, nodes);
    push('first revision of every node', (performance.now() - fromMs) / 1_000, 's');
    push('bytes of all configurations', (await configBytes(core.pool)) / 1e6, 'MB', 'none');
    const use = sampler.stop();
    push('memory of the worker, largest', (use.residentBytesMax['worker'] ?? 0) / 1e6, 'MB');
    push('CPU of the worker for that', use.cpuSeconds['worker'] ?? 0, 's');
    push('CPU of Postgres for that', use.cpuSeconds['postgres'] ?? 0, 's');
    await measureChanges(core, options, measured, push);
  } finally {
    await lifecycle.close();
  }
  signal.throwIfAborted();
  return measured;
}

type Push = (name: string, value: number, unit: string, better?: 'lower' | 'none') => void;

async function measureChanges(
  core: BenchCore,
  options: BenchOptions,
  measured: Measured,
  push: Push,
): Promise<void> {
  options.say('changing one subscription');
  const before = await revisions(core.pool);
  const changedAtMs = performance.now();
  await changeSubscription(core.pool, 1, { disabled: true });
  push('one change, until it is committed', performance.now() - changedAtMs, 'ms');
  await untilPublished(core.pool, options, 0);
  push('one change, until its nodes have it', performance.now() - changedAtMs, 'ms');
  const after = await revisions(core.pool);
  const moved = [...after].filter(([id, revision]) => revision > (before.get(id) ?? 0)).length;
  measured.checks.push({
    bench: 'groups',
    name: 'one change moves the nodes of its group and no other',
    passed: moved === Math.ceil(options.nodes / groups),
    detail: `${moved} of ${options.nodes} nodes`,
  });
  options.say('changing one subscription of every group');
  const fromMs = performance.now();
  for (let id = 2; id <= groups + 1; id += 1) {
    await changeSubscription(core.pool, id, { disabled: true });
  }
  await untilPublished(core.pool, options, 0);
  push('next revision of every node', (performance.now() - fromMs) / 1_000, 's');
}

async function fill(pool: pg.Pool, nodes: number, subscriptions: number): Promise<void> {
  await pool.query("INSERT INTO users (name) VALUES ('bench')");
  await pool.query(
    "INSERT INTO groups (name) SELECT 'group-' || n FROM generate_series(1, $1::integer) AS n",
    [groups],
  );
  await pool.query(
    'INSERT INTO subscriptions (user_id) SELECT 1 FROM generate_series(1, $1::integer)',
    [subscriptions],
  );
  await pool.query(
    `INSERT INTO subscription_groups (group_id, subscription_id)
     SELECT g.id, s.id FROM subscriptions s JOIN groups g ON g.name = 'group-' || (s.id % $1 + 1)`,
    [groups],
  );
  await pool.query(
    `INSERT INTO nodes (name, host, change_seq, changed_at)
     SELECT 'bench-' || n, 'h', 1, now() FROM generate_series(1, $1::integer) AS n`,
    [nodes],
  );
  await pool.query(
    "INSERT INTO node_protocols (node_id, protocol, port) SELECT id, 'VLESS', 443 FROM nodes",
  );
  await pool.query(
    `INSERT INTO protocol_groups (group_id, node_protocol_id)
     SELECT g.id, p.id FROM node_protocols p JOIN groups g ON g.name = 'group-' || (p.node_id % $1 + 1)`,
    [groups],
  );
  await pool.query('VACUUM ANALYZE');
}

const tables = ['groups', 'protocol_groups', 'subscription_groups', 'subscription_links'];

async function rowsOf(pool: pg.Pool): Promise<number> {
  const counts = tables.map((table) => `(SELECT count(*) FROM ${table})`);
  const { rows } = await pool.query<{ rows: number }>(`SELECT ${counts.join(' + ')} AS rows`);
  return rows[0]?.rows ?? 0;
}

/** With their indexes. */
async function bytesOf(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ bytes: number }>(
    'SELECT sum(pg_total_relation_size(name::regclass))::float8 AS bytes FROM unnest($1::text[]) AS name',
    [tables],
  );
  return rows[0]?.bytes ?? 0;
}

async function configBytes(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ bytes: number }>(
    'SELECT coalesce(sum(content_bytes), 0)::float8 AS bytes FROM nodes',
  );
  return rows[0]?.bytes ?? 0;
}

async function revisions(pool: pg.Pool): Promise<Map<number, number>> {
  const { rows } = await pool.query<{ id: number; revision: number }>(
    'SELECT id, revision FROM nodes',
  );
  return new Map(rows.map((row) => [row.id, row.revision]));
}

/** Says how far it is, because many nodes take minutes. */
async function untilPublished(
  pool: pg.Pool,
  { signal, say }: BenchOptions,
  sayEvery: number,
): Promise<void> {
  const deadlineMs = performance.now() + publishMsMax;
  let saidAt = 0;
  while (performance.now() < deadlineMs) {
    signal.throwIfAborted();
    const { rows } = await pool.query<{ waiting: number; published: number }>(
      `SELECT count(*) FILTER (WHERE change_seq > published_seq)::integer AS waiting,
         count(*) FILTER (WHERE published_at IS NOT NULL)::integer AS published FROM nodes`,
    );
    const { waiting = 1, published = 0 } = rows[0] ?? {};
    if (waiting === 0) return;
    if (sayEvery > 0 && published >= saidAt + sayEvery / 10) {
      saidAt = published;
      say(`${published} nodes published`);
    }
    await delay(pollMs);
  }
  throw new Error('not all nodes were published within an hour');
}
