import type { Redis } from 'ioredis';

/** A rendered configuration as it is kept and goes out. Callers must not write to the buffer. */
export interface KeptConfig {
  nodeId: number;
  revision: number;
  /** SHA-256 in hex of the content without the revision's number. */
  hash: string;
  gzip: Buffer;
}

/** A configuration that nobody asked for in a day is rendered anew. */
const keptSeconds = 86_400;
const replacedSeconds = 60;

/**
 * Key of a node's configuration. The content's hash is part of it, so that whatever is found there
 * is right, whoever wrote it and however late. The braces are a hash tag: all of a node's keys are
 * in one slot of a Redis Cluster.
 */
export function configKey(prefix: string, nodeId: number, revision: number, hash: string): string {
  return `${prefix}:config:{${nodeId}}:${revision}:${hash.slice(0, 32)}`;
}

/**
 * Keeps configurations, and lets replaced ones go. Where Redis is away or full nothing is kept, and
 * who needs one renders it from Postgres.
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

/** What is kept under the key; undefined also where Redis is away, since Postgres knows too. */
export async function fetchConfig(
  deps: { redis: Redis; prefix: string },
  wanted: { nodeId: number; revision: number; hash: string },
): Promise<KeptConfig | undefined> {
  const key = configKey(deps.prefix, wanted.nodeId, wanted.revision, wanted.hash);
  const found = await deps.redis.getBuffer(key).catch(() => null);
  if (found === null) return undefined;
  const { nodeId, revision, hash } = wanted;
  // Copied: a short reply is a slice of the whole chunk that came from the socket, and would hold
  // on to all of it for as long as it is in memory.
  return { nodeId, revision, hash, gzip: Buffer.from(found) };
}
