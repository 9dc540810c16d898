import assert from 'node:assert/strict';
import type { KeptConfig } from './config-store.ts';

/** The hot configurations of one process: the newest seen of each node, bounded in bytes. */
export interface ConfigMemory {
  get(wanted: {
    nodeId: number;
    revision: number;
    contentHash: string | null;
  }): KeptConfig | undefined;
  put(config: KeptConfig): void;
  /** Bytes held now. */
  bytes(): number;
}

/** Past the bound the least recently used go first. One that is over the bound is not held. */
export function createConfigMemory(bytesMax: number): ConfigMemory {
  assert(bytesMax >= 0);
  // A Map keeps the order of insertion; a use moves its entry to the end.
  const held = new Map<number, KeptConfig>();
  let bytesHeld = 0;

  function drop(nodeId: number): void {
    const config = held.get(nodeId);
    if (config === undefined) return;
    held.delete(nodeId);
    bytesHeld -= config.gzip.length;
    assert(bytesHeld >= 0);
  }

  return {
    get({ nodeId, revision, contentHash }) {
      const config = held.get(nodeId);
      if (config?.revision !== revision || config.hash !== contentHash) return undefined;
      held.delete(nodeId);
      held.set(nodeId, config);
      return config;
    },
    put(config) {
      const older = held.get(config.nodeId);
      if (older !== undefined && older.revision > config.revision) return;
      drop(config.nodeId);
      if (config.gzip.length > bytesMax) return;
      held.set(config.nodeId, config);
      bytesHeld += config.gzip.length;
      for (const oldest of held.keys()) {
        if (bytesHeld <= bytesMax) break;
        drop(oldest);
      }
    },
    bytes: () => bytesHeld,
  };
}
