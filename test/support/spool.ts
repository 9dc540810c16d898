import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import type { Test } from 'tap';
import { createBufferPool } from '../../src/buffer-pool.ts';
import type { SessionEvent, UsageEntry } from '../../src/contract/node.ts';
import { type LoadDeps, runStream } from '../../src/load/load-stream.ts';
import { sealNext } from '../../src/load/seal.ts';
import { advanceSegmentIds } from '../../src/load/segment-ids.ts';
import { createNode } from '../../src/nodes/change.ts';
import { compact } from '../../src/rows/compact.ts';
import { packSessions, packUsage } from '../../src/rows/pack.ts';
import { createSpool } from '../../src/spool/spool.ts';
import { segmentMemory } from '../../src/spool/stream-entries.ts';
import { type Kind, registerStreams, streamName } from '../../src/spool/streams.ts';
import { withTrim } from '../../src/spool/trim.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { openDatabases } from './stores.ts';

export const atMs = Date.parse('2026-11-24T10:00:00Z');

/** Migrated stores with one node and one user, and functions that fill the spool and load it. */
export async function startSpool(t: Test, settings: Record<string, string> = {}) {
  const stores = await openDatabases(t, { CORE_SPOOL_SHARDS: '1', ...settings });
  const { shards, lateDays } = stores.config.spool;
  const { log, pool, clickhouse } = stores;
  const redis = createRedis(stores.redisUrl);
  t.teardown(() => redis.disconnect());
  await connectRedis(redis);
  await stores.migrate();
  await advanceSegmentIds(pool);
  const prefix = stores.redisPrefix;
  await registerStreams(pool, prefix, shards);
  const spool = createSpool({
    redis,
    prefix,
    shards,
    bytesMax: 1e9,
    idempotencySeconds: 60,
    lateBytesMax: 1e9,
    lateDays,
    nowMs: () => atMs,
  });
  const deps: LoadDeps = {
    pool,
    clickhouse,
    redis: withTrim(redis),
    buffers: createBufferPool(segmentMemory),
    segmentRowsMax: 100_000,
  };
  const { nodeId } = await createNode(
    pool,
    { name: 'n', region: 'r', host: '', ip: '' },
    { registrationSeconds: 60 },
  );
  const userId = await createUser(pool, { name: 'u' });

  const append = async (kind: Kind, rows: number, bytes: Buffer, shard = 0): Promise<void> => {
    const identity = { way: 'flush', id: randomUUID() } as const;
    const verdict = await spool.append(kind, shard, {
      identity,
      ...compact(kind, { rows, bytes }),
    });
    assert.equal(verdict, 'stored');
  };
  const usage = (entry: Partial<UsageEntry>): UsageEntry => ({
    userId,
    nodeProtocolId: 5,
    bytesUp: 10,
    bytesDown: 100,
    recordedAt: atMs,
    ...entry,
  });
  return {
    ...stores,
    pool,
    redis,
    clickhouse,
    deps,
    log,
    nodeId,
    userId,
    append,
    subscribe: () => subscribe(pool, userId),
    appendUsage: (entries: Partial<UsageEntry>[], shard = 0) =>
      append('usage', entries.length, packUsage(nodeId, entries.map(usage)), shard),
    appendSessions: (events: SessionEvent[]) =>
      append('session', events.length, packSessions(nodeId, events)),
    run: (kind: 'usage' | 'session', options: Partial<LoadDeps> = {}, shard = 0) =>
      runStream({ ...deps, ...options }, streamName(prefix, shard, kind)),
    runLate: (kind: 'usage' | 'session', options: Partial<LoadDeps> = {}) =>
      runStream({ ...deps, ...options }, streamName(prefix, 0, kind, 'late')),
    /** Does what a run does that ends right after it has sealed a segment. */
    seal: (client: pg.PoolClient, stream: string) =>
      sealNext({ ...deps, client }, { stream, rowsMax: deps.segmentRowsMax }),
    /** Rows of a query to ClickHouse. */
    rows: async <T>(query: string): Promise<T[]> =>
      (await clickhouse.query({ query, format: 'JSONEachRow' })).json<T>(),
    command: (query: string) => clickhouse.command({ query }),
    counters: () => countersOf(pool),
  };
}

async function subscribe(pool: pg.Pool, userId: number): Promise<number> {
  const unlimited = { userId, trafficLimitBytes: null, expiresAt: null };
  return (await createSubscription(pool, unlimited)).subscriptionId;
}

async function countersOf(pool: pg.Pool): Promise<{ id: number; up: number; down: number }[]> {
  const { rows } = await pool.query(
    `SELECT id, traffic_bytes_up AS up, traffic_bytes_down AS down
     FROM subscriptions ORDER BY id`,
  );
  return rows;
}
