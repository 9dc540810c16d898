import assert from 'node:assert/strict';
import type { CachedConfig } from './config-cache.ts';

/** The hot configurations of one process: the newest seen of each node, bounded in bytes. */
export interface ConfigMemory {
  get(nodeId: number, revision: number): CachedConfig | undefined;
  put(nodeId: number, config: CachedConfig): void;
  /** Bytes held now. */
  bytes(): number;
}

/** Past the bound the least recently used go first. One that is over the bound is not held. */
export function createConfigMemory(bytesMax: number): ConfigMemory {
  assert(bytesMax >= 0);
  // A Map keeps the order of insertion; a use moves its entry to the end.
  const held = new Map<number, CachedConfig>();
  let bytesHeld = 0;

  function drop(nodeId: number): void {
    const config = held.get(nodeId);
    if (config === undefined) return;
    held.delete(nodeId);
    bytesHeld -= sizeOf(config);
    assert(bytesHeld >= 0);
  }

  function get(nodeId: number, revision: number): CachedConfig | undefined {
    const config = held.get(nodeId);
    if (config?.revision !== revision) return undefined;
    held.delete(nodeId);
    held.set(nodeId, config);
    return config;
  }

  function put(nodeId: number, config: CachedConfig): void {
    const older = held.get(nodeId);
    if (older !== undefined && older.revision > config.revision) return;
    drop(nodeId);
    if (sizeOf(config) > bytesMax) return;
    held.set(nodeId, config);
    bytesHeld += sizeOf(config);
    for (const oldest of held.keys()) {
      if (bytesHeld <= bytesMax) break;
      drop(oldest);
    }
  }

  return { get, put, bytes: () => bytesHeld };
}

function sizeOf(config: CachedConfig): number {
  return config.json.length + config.gzip.length;
}
