import { createHash } from 'node:crypto';
import type pg from 'pg';
import type { Logger } from '../log.ts';
import { listenForNodes } from '../stores/listen.ts';

/** What the routes need to know of the node that calls. */
export interface KnownNode {
  nodeId: number;
  /** The revision that the node should run. */
  revision: number;
  /** SHA-256 in hex of that revision's content; null where it was never rendered. */
  contentHash: string | null;
}

/**
 * Who holds which key, asked on every request, so answered from memory.
 *
 * Every change to a node (key, revocation, revision) is notified on the Postgres channel
 * `core_nodes` when it commits, and drops the node from this cache. While the listening connection
 * is proven alive (it is asked twice a second) a node is known for an hour, since a look-up costs more
 * than all else of a heartbeat; a key that nobody holds for a minute; and everything for half a second
 * while the connection is not proven. Either way a revoked key dies, and a new revision shows, within
 * a second.
 */
export interface NodeDirectory {
  /** The node of this key where that is in memory, as it nearly always is. */
  known(authKey: string): KnownNode | undefined;
  /**
   * The node of this key, or undefined where no node holds it: from memory, else from Postgres;
   * rejects while that is away.
   */
  authenticate(authKey: string): Promise<KnownNode | undefined>;
  close(): Promise<void>;
}

/** SHA-256 of an auth key, as stored in `nodes.auth_key_hash`. */
export function hashAuthKey(authKey: string): Buffer {
  return createHash('sha256').update(authKey).digest();
}

/** 32 random bytes in base64url. */
const authKeyShape = /^[A-Za-z0-9_-]{43}$/;
/** Past this many entries the cache starts anew; ten times the largest fleet of DESIGN.md. */
const entriesMax = 100_000;
/** Ages are counted in ticks, since it would cost a request more to read the clock. */
const tickMs = 10_000;
const nodeLifeTicks = 360;
/** The key of a node that is restored with it (`core fleet apply`) is one of these before. */
const nobodyLifeTicks = 6;
const deafLifeMs = 500;
const lookupKeysMax = 1_000;

interface Entry {
  node: KnownNode | undefined;
  /** Loaded at, in ticks, and on the monotonic clock. */
  atTicks: number;
  atMs: number;
}

export function createNodeDirectory(options: {
  pool: pg.Pool;
  databaseUrl: string;
  log: Logger;
}): NodeDirectory {
  // By the key itself, which comes with every request anyway: its SHA-256 would be a tenth of the
  // work of one. A Map compares a key only with one of the same seeded hash, so how long that takes
  // tells nothing about the keys in it.
  const entries = new Map<string, Entry>();
  const keyByNode = new Map<number, string>();
  let dropped = 0;
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
  }, tickMs);
  timer.unref();

  const forget = (nodeId: number | undefined): void => {
    dropped += 1;
    if (nodeId === undefined) {
      entries.clear();
      keyByNode.clear();
      return;
    }
    const authKey = keyByNode.get(nodeId);
    if (authKey !== undefined) entries.delete(authKey);
    keyByNode.delete(nodeId);
  };
  const listener = listenForNodes(options.databaseUrl, options.log, forget);

  const fresh = (authKey: string): Entry | undefined => {
    const entry = entries.get(authKey);
    return entry !== undefined && isFresh(entry) ? entry : undefined;
  };
  const isFresh = (entry: Entry): boolean => {
    if (!listener.isProven()) return performance.now() - entry.atMs < deafLifeMs;
    const lifeTicks = entry.node === undefined ? nobodyLifeTicks : nodeLifeTicks;
    return ticks - entry.atTicks < lifeTicks;
  };

  const lookUp = createBatchedLookup(async (authKeys: readonly string[]) => {
    const droppedBefore = dropped;
    const found = await selectNodes(options.pool, authKeys);
    // A notification during the query may concern a row as it was read: do not keep any of them.
    const keep = dropped === droppedBefore;
    if (keep && entries.size + authKeys.length > entriesMax) forget(undefined);
    for (const authKey of keep ? authKeys : []) {
      const node = found.get(authKey);
      entries.set(authKey, { node, atTicks: ticks, atMs: performance.now() });
      if (node !== undefined) keyByNode.set(node.nodeId, authKey);
    }
    return found;
  });

  return {
    known: (authKey) => fresh(authKey)?.node,
    async authenticate(authKey) {
      const entry = fresh(authKey);
      if (entry !== undefined) return entry.node;
      if (!authKeyShape.test(authKey)) return undefined;
      return (await lookUp(authKey)).get(authKey);
    },
    async close() {
      clearInterval(timer);
      await listener.close();
    },
  };
}

/** Of these keys those that a node holds. */
async function selectNodes(
  pool: pg.Pool,
  authKeys: readonly string[],
): Promise<Map<string, KnownNode>> {
  const { rows } = await pool.query<KnownNode & { index: number }>(
    `SELECT id AS "nodeId", revision, encode(content_hash, 'hex') AS "contentHash",
       (asked.index - 1)::integer AS index
     FROM unnest($1::bytea[]) WITH ORDINALITY AS asked (hash, index)
       JOIN nodes ON auth_key_hash = asked.hash
     WHERE revoked_at IS NULL`,
    [authKeys.map(hashAuthKey)],
  );
  return new Map(rows.map(({ index, ...node }) => [authKeys[index] ?? '', node]));
}

/** One query in flight; keys asked for meanwhile share the next one. */
function createBatchedLookup<T>(
  load: (keys: readonly string[]) => Promise<T>,
): (key: string) => Promise<T> {
  let waiting: { keys: Set<string>; result: Promise<T> } | undefined;
  let running: Promise<unknown> = Promise.resolve();
  return (key) => {
    if (waiting !== undefined && waiting.keys.size < lookupKeysMax) {
      waiting.keys.add(key);
      return waiting.result;
    }
    const keys = new Set([key]);
    const batch = {
      keys,
      result: running.then(() => {
        if (waiting === batch) waiting = undefined;
        return load([...keys]);
      }),
    };
    waiting = batch;
    running = batch.result.catch(() => undefined);
    return batch.result;
  };
}
