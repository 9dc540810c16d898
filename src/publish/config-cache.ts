import type { Redis } from 'ioredis';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { classifyFailure } from '../stores/failures.ts';
import { createConfigMemory } from './config-memory.ts';
import { fetchConfig, type KeptConfig } from './config-store.ts';
import { unpackContent } from './content.ts';
import { publishForReader } from './publish.ts';

/** Which configuration is asked for: the node's current one, as its process knows it. */
export interface WantedConfig {
  nodeId: number;
  revision: number;
  /** SHA-256 in hex of its content; null where the node was never rendered. */
  contentHash: string | null;
}

export interface ConfigCache {
  /**
   * The configuration of a node, as a rule at the revision asked for. Where nobody keeps that one
   * it is rendered, and the answer is then the current revision, perhaps a new one, and says so.
   * Undefined where there is no such node.
   * @throws CoreError STORE_UNAVAILABLE if neither Redis nor Postgres can give it; CONFIG_QUEUE_FULL
   * if this process prepares `pendingMax` others already.
   */
  get(wanted: WantedConfig): Promise<KeptConfig | undefined>;
  /** Its JSON, for a client that takes no gzip. */
  plain(config: KeptConfig): Promise<Buffer>;
}

/** Answers under way in this process; past it a node is told to come again. */
const pendingMax = 1_000;

/**
 * Serves rendered configurations: the hot ones from this process, the others from Redis, where the
 * worker puts each revision before it commits it. However many ask this process for one at once, it
 * is fetched or rendered once. Without Redis each process renders for itself; without Postgres what
 * is kept is served.
 */
export function createConfigCache(options: {
  pool: pg.Pool;
  redis: Redis;
  prefix: string;
  memoryBytesMax?: number;
}): ConfigCache {
  const memory = createConfigMemory(options.memoryBytesMax ?? 67_108_864);
  const pending = new Map<string, Promise<KeptConfig | undefined>>();

  async function fetchOrRender(wanted: WantedConfig): Promise<KeptConfig | undefined> {
    const config = (await fetchKnown(wanted)) ?? (await renderUnlessKept(wanted));
    if (config !== undefined) memory.put(config);
    return config;
  }

  async function fetchKnown(wanted: WantedConfig): Promise<KeptConfig | undefined> {
    if (wanted.contentHash === null) return undefined;
    return fetchConfig(options, { ...wanted, hash: wanted.contentHash });
  }

  /** Another process may have published meanwhile: then that revision is the answer. */
  async function renderUnlessKept(wanted: WantedConfig): Promise<KeptConfig | undefined> {
    try {
      const current = await readCurrent(options.pool, wanted.nodeId);
      if (current === undefined) return undefined;
      const isNews = current.contentHash !== wanted.contentHash;
      const kept = isNews ? await fetchKnown(current) : undefined;
      return kept ?? (await publishForReader(options, wanted.nodeId));
    } catch (thrown) {
      throw classifyFailure(thrown);
    }
  }

  function get(wanted: WantedConfig): Promise<KeptConfig | undefined> {
    const hot = memory.get(wanted);
    if (hot !== undefined) return Promise.resolve(hot);
    const pendingKey = `${wanted.nodeId}:${wanted.revision}:${wanted.contentHash}`;
    const underWay = pending.get(pendingKey);
    if (underWay !== undefined) return underWay;
    if (pending.size >= pendingMax) {
      return Promise.reject(
        new CoreError(
          'CONFIG_QUEUE_FULL',
          'Too many configurations are being prepared; try again',
          {
            headers: { 'Retry-After': '2' },
          },
        ),
      );
    }
    const answer = fetchOrRender(wanted).finally(() => pending.delete(pendingKey));
    pending.set(pendingKey, answer);
    return answer;
  }

  async function plain(config: KeptConfig): Promise<Buffer> {
    const hot = memory.getPlain(config);
    if (hot !== undefined) return hot;
    const unpacked = await unpackContent(config.gzip);
    memory.putPlain(config, unpacked);
    return unpacked;
  }

  return { get, plain };
}

async function readCurrent(pool: pg.Pool, nodeId: number): Promise<WantedConfig | undefined> {
  const { rows } = await pool.query<WantedConfig>(
    `SELECT id AS "nodeId", revision, encode(content_hash, 'hex') AS "contentHash"
     FROM nodes WHERE id = $1`,
    [nodeId],
  );
  return rows[0];
}
