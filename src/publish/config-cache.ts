import type { Redis } from 'ioredis';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { classifyFailure } from '../stores/failures.ts';
import { createConfigMemory } from './config-memory.ts';
import { fetchConfig, type KeptConfig } from './config-store.ts';
import { decompressContent } from './content.ts';
import { publishForReader } from './publish.ts';

/** The configuration that a caller wants: the node's current one, as far as this process knows. */
interface WantedConfig {
  nodeId: number;
  revision: number;
  /** SHA-256 in hex of its content; null if the node was never rendered. */
  contentHash: string | null;
}

export interface ConfigCache {
  /**
   * The configuration of a node, usually at the wanted revision. If nobody keeps that one, Core renders
   * the node, and the answer is the current revision, perhaps a new one. Undefined if there is no such
   * node.
   * @throws CoreError STORE_UNAVAILABLE if neither Redis nor Postgres can give it; CONFIG_QUEUE_FULL
   * if this process prepares `pendingMax` others already.
   */
  get(wanted: WantedConfig): Promise<KeptConfig | undefined>;
  /** The configuration as JSON, for a client that does not accept gzip. */
  plain(config: KeptConfig): Promise<Buffer>;
}

/** Configurations that one process prepares at a time. It refuses further ones. */
const pendingMax = 1_000;

/**
 * Serves rendered configurations: hot ones from memory, the others from Redis, where the worker puts
 * each revision before it commits it. Requests for the same configuration share one answer. Without
 * Redis each process renders for itself. Without Postgres the process serves what memory and Redis have.
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
    const config = (await fetchWanted(wanted)) ?? (await fetchNewerOrRender(wanted));
    if (config !== undefined) memory.put(config);
    return config;
  }

  async function fetchWanted(wanted: WantedConfig): Promise<KeptConfig | undefined> {
    if (wanted.contentHash === null) return undefined;
    return fetchConfig(options, { ...wanted, hash: wanted.contentHash });
  }

  /** Another process may have published a newer revision meanwhile. Then that one is the answer. */
  async function fetchNewerOrRender(wanted: WantedConfig): Promise<KeptConfig | undefined> {
    try {
      const current = await readCurrent(options.pool, wanted.nodeId);
      if (current === undefined) return undefined;
      const isNewer = current.contentHash !== wanted.contentHash;
      const newer = isNewer ? await fetchWanted(current) : undefined;
      return newer ?? (await publishForReader(options, wanted.nodeId));
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
    const json = await decompressContent(config.gzip);
    memory.putPlain(config, json);
    return json;
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
