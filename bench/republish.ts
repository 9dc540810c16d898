import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { Logger } from '../src/log.ts';
import { bumpNodes } from '../src/nodes/bump.ts';
import { createHeartbeats } from '../src/nodes/heartbeat.ts';
import { startPublisher } from '../src/publish/publisher.ts';
import { inTransaction } from '../src/stores/postgres.ts';

export interface RepublishFigures {
  nodes: number;
  clientsPerNode: number;
  /** Until every node had its first revision. */
  firstSeconds: number;
  /** Until every node had its next revision, after one change that touched all of them. */
  againSeconds: number;
  /** Longest that the heartbeats of all nodes took to be written meanwhile. */
  heartbeatFlushMsMax: number;
}

/**
 * Fills an empty, migrated database with nodes that have a VLESS inbound and `clientsPerNode`
 * clients each, lets one worker's publisher give each a revision, then cuts one subscription off
 * that has a link on every node, and measures until every node has its next revision, while each
 * node sends a heartbeat a second.
 */
export async function run(deps: {
  pool: pg.Pool;
  /** For the publisher alone, as in a worker. */
  publishPool: pg.Pool;
  redis: Redis;
  prefix: string;
  databaseUrl: string;
  log: Logger;
  nodes: number;
  clientsPerNode: number;
  signal: AbortSignal;
}): Promise<RepublishFigures> {
  const { pool, nodes, clientsPerNode, signal } = deps;
  await fill(pool, nodes, clientsPerNode);
  const publisher = startPublisher({ ...deps, pool: deps.publishPool });
  try {
    const firstSeconds = await untilPublished(pool, performance.now(), signal);
    const beating = startBeating(pool, deps.log, nodes);
    try {
      const startedAtMs = performance.now();
      await cutOff(pool);
      const againSeconds = await untilPublished(pool, startedAtMs, signal);
      const heartbeatFlushMsMax = await beating.stop();
      return { nodes, clientsPerNode, firstSeconds, againSeconds, heartbeatFlushMsMax };
    } finally {
      await beating.stop();
    }
  } finally {
    await publisher.close();
  }
}

/** One change that touches every node. */
async function cutOff(pool: pg.Pool): Promise<void> {
  await inTransaction(pool, async (client) => {
    await client.query("UPDATE subscriptions SET status = 'limited' WHERE id = 1");
    const { rows } = await client.query<{ id: number }>('SELECT id FROM nodes');
    await bumpNodes(
      client,
      rows.map((row) => row.id),
      'subscription 1 limited',
    );
  });
}

async function fill(pool: pg.Pool, nodes: number, clients: number): Promise<void> {
  await pool.query("INSERT INTO users (name) VALUES ('bench')");
  await pool.query(
    'INSERT INTO subscriptions (user_id) SELECT 1 FROM generate_series(1, $1::integer)',
    [clients],
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
    `INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id)
     SELECT gen_random_uuid(), s.id, p.id FROM node_protocols p CROSS JOIN subscriptions s`,
  );
  await pool.query('ANALYZE');
}

async function untilPublished(
  pool: pg.Pool,
  startedAtMs: number,
  signal: AbortSignal,
): Promise<number> {
  const deadlineMs = startedAtMs + 600_000;
  while (performance.now() < deadlineMs) {
    signal.throwIfAborted();
    const { rows } = await pool.query<{ waits: boolean }>(
      'SELECT EXISTS (SELECT FROM nodes WHERE change_seq > published_seq) AS waits',
    );
    if (rows[0]?.waits === false) return (performance.now() - startedAtMs) / 1_000;
    await new Promise((resume) => setTimeout(resume, 50));
  }
  throw new Error('not all nodes were published within ten minutes');
}

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
      await new Promise((resume) => setTimeout(resume, Math.max(0, 1_000 - tookMs)));
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
