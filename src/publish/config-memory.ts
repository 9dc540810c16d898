import assert from 'node:assert/strict';
import type { KeptConfig } from './config-store.ts';

/** The hot configurations of one process: the newest one of each node, bounded in bytes. */
interface ConfigMemory {
  get(wanted: {
    nodeId: number;
    revision: number;
    contentHash: string | null;
  }): KeptConfig | undefined;
  put(config: KeptConfig): void;
  /** The configuration as JSON, if `putPlain` has added it. */
  getPlain(config: KeptConfig): Buffer | undefined;
  /** Keeps the JSON next to the gzip, if the gzip is held and both fit. */
  putPlain(config: KeptConfig, plain: Buffer): void;
  /** Bytes held now. */
  bytes(): number;
}

interface Held {
  config: KeptConfig;
  plain: Buffer | undefined;
}

/** Drops the least recently used ones beyond `bytesMax`. Never holds one that is larger than that. */
export function createConfigMemory(bytesMax: number): ConfigMemory {
  assert(bytesMax >= 0);
  // A Map keeps the order of insertion, and each use moves a configuration to the end.
  const held = new Map<number, Held>();
  let bytesHeld = 0;

  function drop(nodeId: number): void {
    const kept = held.get(nodeId);
    if (kept === undefined) return;
    held.delete(nodeId);
    bytesHeld -= kept.config.gzip.length + (kept.plain?.length ?? 0);
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
      const kept = held.get(nodeId);
      if (kept?.config.revision !== revision || kept.config.hash !== contentHash) {
        return undefined;
      }
      held.delete(nodeId);
      held.set(nodeId, kept);
      return kept.config;
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
      const kept = held.get(config.nodeId);
      return kept?.config === config ? kept.plain : undefined;
    },
    putPlain(config, plain) {
      const kept = held.get(config.nodeId);
      if (kept?.config !== config || kept.plain !== undefined) return;
      if (config.gzip.length + plain.length > bytesMax) return;
      kept.plain = plain;
      bytesHeld += plain.length;
      dropOldest();
    },
    bytes: () => bytesHeld,
  };
}
