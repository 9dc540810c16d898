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
  /** The configuration unpacked, where `putPlain` has left it. */
  getPlain(config: KeptConfig): Buffer | undefined;
  /** Keeps it beside the packed one, where that is held and both fit. */
  putPlain(config: KeptConfig, plain: Buffer): void;
  /** Bytes held now. */
  bytes(): number;
}

interface Held {
  config: KeptConfig;
  plain: Buffer | undefined;
}

/** Past the bound the least recently used go first. One that is over the bound is not held. */
export function createConfigMemory(bytesMax: number): ConfigMemory {
  assert(bytesMax >= 0);
  // A Map keeps the order of insertion; a use moves its entry to the end.
  const held = new Map<number, Held>();
  let bytesHeld = 0;

  function drop(nodeId: number): void {
    const entry = held.get(nodeId);
    if (entry === undefined) return;
    held.delete(nodeId);
    bytesHeld -= entry.config.gzip.length + (entry.plain?.length ?? 0);
    assert(bytesHeld >= 0);
  }

  function dropOldest(): void {
    for (const oldest of held.keys()) {
      if (bytesHeld <= bytesMax) break;
      drop(oldest);
    }
  }

  return {
    get({ nodeId, revision, contentHash }) {
      const entry = held.get(nodeId);
      if (entry?.config.revision !== revision || entry.config.hash !== contentHash) {
        return undefined;
      }
      held.delete(nodeId);
      held.set(nodeId, entry);
      return entry.config;
    },
    put(config) {
      const older = held.get(config.nodeId);
      if (older !== undefined && older.config.revision > config.revision) return;
      drop(config.nodeId);
      if (config.gzip.length > bytesMax) return;
      held.set(config.nodeId, { config, plain: undefined });
      bytesHeld += config.gzip.length;
      dropOldest();
    },
    getPlain(config) {
      const entry = held.get(config.nodeId);
      return entry?.config === config ? entry.plain : undefined;
    },
    putPlain(config, plain) {
      const entry = held.get(config.nodeId);
      if (entry?.config !== config || entry.plain !== undefined) return;
      if (config.gzip.length + plain.length > bytesMax) return;
      entry.plain = plain;
      bytesHeld += plain.length;
      dropOldest();
    },
    bytes: () => bytesHeld,
  };
}
