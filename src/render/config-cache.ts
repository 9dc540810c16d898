import assert from 'node:assert/strict';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { classifyFailure } from '../stores/failures.ts';
import { createConfigMemory } from './config-memory.ts';
import { loadNodeRows } from './load.ts';
import { renderNodeConfigJson } from './render.ts';

/** A rendered configuration, as its bytes go out. Callers must not write to the buffers. */
export interface CachedConfig {
  revision: number;
  json: Buffer;
  gzip: Buffer;
}

export interface ConfigCache {
  /**
   * The configuration of a node, as a rule at the revision asked for. Where Postgres has moved on
   * and the old one is not kept, the answer is the current revision and says so. Undefined where
   * there is no such node.
   * @throws CoreError STORE_UNAVAILABLE where neither Redis nor Postgres can give it.
   */
  get(nodeId: number, revision: number): Promise<CachedConfig | undefined>;
  /** Renders the node's current revision unless it is kept already. */
  warm(nodeId: number): Promise<CachedConfig | undefined>;
}

const compress = promisify(gzip);
/**
 * In zlib's own threads. A configuration is mostly random UUIDs, which the default level packs little
 * better and takes three times as long for.
 */
const gzipLevel = 1;

/** A configuration that nobody asked for in a day is rendered anew. */
const keptSeconds = 86_400;
/** Answers under way in this process; past it a node is told to come again. */
const pendingMax = 1_000;

/**
 * Keeps rendered configurations in Redis by node and revision, and the hot ones in this process. The
 * first render of a revision wins, so a revision has the same bytes whoever serves it. However many
 * ask this process for one at once, it is fetched or rendered once. Without Redis every process
 * renders for itself; without Postgres what is kept is served.
 */
export function createConfigCache(options: {
  pool: pg.Pool;
  redis: Redis;
  prefix: string;
  memoryBytesMax?: number;
}): ConfigCache {
  const { pool, redis, prefix } = options;
  const memory = createConfigMemory(options.memoryBytesMax ?? 67_108_864);
  const pending = new Map<string, Promise<CachedConfig | undefined>>();
  // The braces are a hash tag: all of a node's revisions are in one slot of a Redis Cluster.
  const keyOf = (nodeId: number, revision: number) => `${prefix}:config:{${nodeId}}:${revision}`;

  async function fetchOrRender(nodeId: number, revision: number) {
    const kept = await fetchKept(redis, keyOf(nodeId, revision), revision);
    const config = kept ?? (await renderAndKeep(nodeId));
    if (config !== undefined) memory.put(nodeId, config);
    return config;
  }

  async function renderAndKeep(nodeId: number): Promise<CachedConfig | undefined> {
    const rendered = await renderFromPostgres(pool, nodeId);
    if (rendered === undefined) return undefined;
    return keepFirst(redis, keyOf(nodeId, rendered.revision), rendered);
  }

  function get(nodeId: number, revision: number): Promise<CachedConfig | undefined> {
    const hot = memory.get(nodeId, revision);
    if (hot !== undefined) return Promise.resolve(hot);
    const pendingKey = `${nodeId}:${revision}`;
    const underWay = pending.get(pendingKey);
    if (underWay !== undefined) return underWay;
    if (pending.size >= pendingMax) {
      return Promise.reject(
        new CoreError('STORE_UNAVAILABLE', 'Too many configurations are being made, try again', {
          headers: { 'Retry-After': '2' },
        }),
      );
    }
    const answer = fetchOrRender(nodeId, revision).finally(() => pending.delete(pendingKey));
    pending.set(pendingKey, answer);
    return answer;
  }

  async function warm(nodeId: number): Promise<CachedConfig | undefined> {
    const revision = await currentRevision(pool, nodeId);
    return revision === undefined ? undefined : get(nodeId, revision);
  }

  return { get, warm };
}

/** What Redis keeps under the key; undefined also where Redis is away, since Postgres knows too. */
async function fetchKept(
  redis: Redis,
  key: string,
  revision: number,
): Promise<CachedConfig | undefined> {
  try {
    return fromFields(await redis.hmgetBuffer(key, 'json', 'gzip'), revision);
  } catch {
    return undefined;
  }
}

/**
 * Stores a render unless there is one already, and gives back the one that is kept. Where Redis is
 * away or full the render itself is the answer: it is right, only not shared.
 */
async function keepFirst(redis: Redis, key: string, rendered: CachedConfig): Promise<CachedConfig> {
  try {
    // MULTI, so that both fields are of one render and never without an expiry.
    const replies = await redis
      .multi()
      .hsetnx(key, 'json', rendered.json)
      .hsetnx(key, 'gzip', rendered.gzip)
      .expire(key, keptSeconds)
      .hmgetBuffer(key, 'json', 'gzip')
      .exec();
    const fields = replies?.[3]?.[1];
    if (!Array.isArray(fields)) return rendered;
    return fromFields(fields, rendered.revision) ?? rendered;
  } catch {
    return rendered;
  }
}

function fromFields(fields: readonly unknown[], revision: number): CachedConfig | undefined {
  const [json, packed] = fields;
  if (!Buffer.isBuffer(json) || !Buffer.isBuffer(packed)) return undefined;
  // Copied: a short reply is a slice of the whole chunk that came from the socket, and would hold
  // on to all of it for as long as it is in memory.
  return { revision, json: Buffer.from(json), gzip: Buffer.from(packed) };
}

async function renderFromPostgres(
  pool: pg.Pool,
  nodeId: number,
): Promise<CachedConfig | undefined> {
  const rows = await reading(async () => {
    const client = await pool.connect();
    let failed = true;
    try {
      const loaded = await loadNodeRows(client, nodeId);
      failed = false;
      return loaded;
    } finally {
      client.release(failed);
    }
  });
  if (rows === undefined) return undefined;
  assert.equal(rows.node.id, nodeId);
  const json = renderNodeConfigJson(rows);
  return { revision: rows.node.revision, json, gzip: await compress(json, { level: gzipLevel }) };
}

async function currentRevision(pool: pg.Pool, nodeId: number): Promise<number | undefined> {
  const result = await reading(() =>
    pool.query<{ revision: number }>('SELECT revision FROM nodes WHERE id = $1', [nodeId]),
  );
  return result.rows[0]?.revision;
}

/** Runs a read of Postgres; what it throws names a store that is away as such. */
async function reading<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (thrown) {
    throw classifyFailure(thrown);
  }
}
