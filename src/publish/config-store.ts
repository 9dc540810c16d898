import type { Redis } from 'ioredis';

/** A rendered configuration as Core keeps and sends it. Callers must not write to the buffer. */
export interface KeptConfig {
  nodeId: number;
  revision: number;
  /** SHA-256 in hex of the content, which does not contain the revision. */
  hash: string;
  gzip: Buffer;
}

/** Redis keeps a configuration for a day. After that, the next request renders it again. */
const keptSeconds = 86_400;
/** A process may ask for a replaced revision until it hears of the new one. */
const replacedSeconds = 60;

/**
 * The Redis key of a node's configuration. It contains the content's hash, so its value is right no
 * matter who wrote it and when. The braces are a hash tag, so that a Redis Cluster keeps all keys of a
 * node in one slot.
 */
export function configKey(prefix: string, nodeId: number, revision: number, hash: string): string {
  return `${prefix}:config:{${nodeId}}:${revision}:${hash.slice(0, 32)}`;
}

/**
 * Keeps configurations, and lets replaced ones expire. If Redis is away or full, it keeps nothing, and
 * whoever needs a configuration renders it from Postgres.
 */
export async function keepConfigs(
  deps: { redis: Redis; prefix: string },
  configs: readonly KeptConfig[],
  replacedKeys: readonly string[] = [],
): Promise<void> {
  if (configs.length + replacedKeys.length === 0) return;
  const pipeline = deps.redis.pipeline();
  for (const { nodeId, revision, hash, gzip } of configs) {
    pipeline.set(configKey(deps.prefix, nodeId, revision, hash), gzip, 'EX', keptSeconds);
  }
  for (const key of replacedKeys) pipeline.expire(key, replacedSeconds);
  await pipeline.exec().catch(() => undefined);
}

/** The configuration that Redis has. Undefined also if Redis is away: Postgres can replace it. */
export async function fetchConfig(
  deps: { redis: Redis; prefix: string },
  wanted: { nodeId: number; revision: number; hash: string },
): Promise<KeptConfig | undefined> {
  const key = configKey(deps.prefix, wanted.nodeId, wanted.revision, wanted.hash);
  const found = await deps.redis.getBuffer(key).catch(() => null);
  if (found === null) return undefined;
  const { nodeId, revision, hash } = wanted;
  // Copied, because a short reply is a slice of the socket's whole chunk, and would keep all of the
  // chunk in memory.
  return { nodeId, revision, hash, gzip: Buffer.from(found) };
}
