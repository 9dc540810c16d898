import { createHash } from 'node:crypto';
import type pg from 'pg';
import type { Logger } from '../log.ts';
import { listenForNodes } from './channels.ts';

/** What a route needs to know about the calling node. */
export interface KnownNode {
  nodeId: number;
  /** The revision that the node should run. */
  revision: number;
  /** SHA-256 in hex of that revision's content; null if it was never rendered. */
  contentHash: string | null;
}

/**
 * Finds the node that holds a key. Every request asks, so the answer comes from memory: a look-up in
 * Postgres would cost more than the rest of a heartbeat.
 *
 * Postgres notifies every change of a node (key, revocation, revision) on the channel `core_nodes` when
 * it commits, and the node then leaves this cache. The listening connection is tested twice a second.
 * While it is proven alive, a node stays for an hour, and a key that nobody holds for a minute. While it
 * is not, everything stays for half a second. In both cases a revoked key stops working, and a new
 * revision shows, within a second.
 */
export interface NodeDirectory {
  /** The node of this key if it is in memory, as it nearly always is. */
  known(authKey: string): KnownNode | undefined;
  /**
   * The node of this key, from memory, or from Postgres if it is not there. Undefined if no node
   * holds the key. Rejects while Postgres is away.
   */
  authenticate(authKey: string): Promise<KnownNode | undefined>;
  close(): Promise<void>;
}

/** SHA-256 of an auth key, for `nodes.auth_key_hash`. */
export function hashAuthKey(authKey: string): Buffer {
  return createHash('sha256').update(authKey).digest();
}

/** 32 random bytes in base64url. */
const authKeyShape = /^[A-Za-z0-9_-]{43}$/;
/** A full cache is emptied. Ten times the largest fleet that Core is made for. */
const answersMax = 100_000;
/** The unit of ages, because a request has no time to read the clock. */
const tickMs = 10_000;
const nodeLifeTicks = 360;
/** Short, because a restored backup brings back the node of such a key without a notification. */
const nobodyLifeTicks = 6;
/** How long an answer stays while the listening connection is not proven alive. */
const unprovenLifeMs = 500;
const lookupKeysMax = 1_000;

interface Answer {
  node: KnownNode | undefined;
  /** When Postgres gave it: in ticks, and on the monotonic clock. */
  atTicks: number;
  atMs: number;
}

export function createNodeDirectory(options: {
  pool: pg.Pool;
  databaseUrl: string;
  log: Logger;
}): NodeDirectory {
  // By the key itself, because its SHA-256 would be a tenth of a request's work. A Map compares two
  // keys only if their seeded hashes are equal, so the time it takes tells nothing about its keys.
  const answers = new Map<string, Answer>();
  const keyByNode = new Map<number, string>();
  let drops = 0;
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
  }, tickMs);
  timer.unref();

  const forget = (nodeId: number | undefined): void => {
    drops += 1;
    if (nodeId === undefined) {
      answers.clear();
      keyByNode.clear();
      return;
    }
    const authKey = keyByNode.get(nodeId);
    if (authKey !== undefined) answers.delete(authKey);
    keyByNode.delete(nodeId);
  };
  const listener = listenForNodes(options.databaseUrl, options.log, forget);

  const freshAnswer = (authKey: string): Answer | undefined => {
    const answer = answers.get(authKey);
    return answer !== undefined && isFresh(answer) ? answer : undefined;
  };
  const isFresh = (answer: Answer): boolean => {
    if (!listener.isProven()) return performance.now() - answer.atMs < unprovenLifeMs;
    const lifeTicks = answer.node === undefined ? nobodyLifeTicks : nodeLifeTicks;
    return ticks - answer.atTicks < lifeTicks;
  };

  const lookUp = createBatchedLookup(async (authKeys: readonly string[]) => {
    const dropsBefore = drops;
    const found = await selectNodes(options.pool, authKeys);
    // A notification during the query may mean that a row it read is out of date: keep none of them.
    const keep = drops === dropsBefore;
    if (keep && answers.size + authKeys.length > answersMax) forget(undefined);
    for (const authKey of keep ? authKeys : []) {
      const node = found.get(authKey);
      answers.set(authKey, { node, atTicks: ticks, atMs: performance.now() });
      if (node !== undefined) keyByNode.set(node.nodeId, authKey);
    }
    return found;
  });

  return {
    known: (authKey) => freshAnswer(authKey)?.node,
    async authenticate(authKey) {
      const answer = freshAnswer(authKey);
      if (answer !== undefined) return answer.node;
      if (!authKeyShape.test(authKey)) return undefined;
      return (await lookUp(authKey)).get(authKey);
    },
    async close() {
      clearInterval(timer);
      await listener.close();
    },
  };
}

/** The nodes that hold these keys; a key that nobody holds is absent. */
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

/** Runs one query at a time. All keys that callers ask for meanwhile share the next one. */
function createBatchedLookup<T>(
  select: (keys: readonly string[]) => Promise<T>,
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
        return select([...keys]);
      }),
    };
    waiting = batch;
    running = batch.result.catch(() => undefined);
    return batch.result;
  };
}
