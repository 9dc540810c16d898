import { createHash, hash as digest } from 'node:crypto';
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
 * is proven alive (it is asked twice a second) an entry is good for a minute; while it is not, for
 * half a second. Either way a revoked key dies, and a new revision shows, within a second.
 */
export interface NodeDirectory {
  /**
   * The node of this key, or undefined where no node holds it: at once where it is known, else once
   * Postgres has told; rejects while that is away.
   */
  authenticate(authKey: string): KnownNode | undefined | Promise<KnownNode | undefined>;
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
const listeningLifeMs = 60_000;
const deafLifeMs = 500;
const lookupKeysMax = 1_000;

interface Entry {
  node: KnownNode | undefined;
  /** Loaded at, on the monotonic clock. */
  atMs: number;
}

export function createNodeDirectory(options: {
  pool: pg.Pool;
  databaseUrl: string;
  log: Logger;
}): NodeDirectory {
  const entries = new Map<string, Entry>();
  const hashByNode = new Map<number, string>();
  let dropped = 0;

  const forget = (nodeId: number | undefined): void => {
    dropped += 1;
    if (nodeId === undefined) {
      entries.clear();
      hashByNode.clear();
      return;
    }
    const hash = hashByNode.get(nodeId);
    if (hash !== undefined) entries.delete(hash);
    hashByNode.delete(nodeId);
  };
  const listener = listenForNodes(options.databaseUrl, options.log, forget);

  const isFresh = (entry: Entry): boolean => {
    const ageMs = performance.now() - entry.atMs;
    return ageMs < deafLifeMs || (listener.isProven() && ageMs < listeningLifeMs);
  };

  const lookUp = createBatchedLookup(async (hashes: readonly string[]) => {
    const droppedBefore = dropped;
    const found = await selectNodes(options.pool, hashes);
    // A notification during the query may concern a row as it was read: do not keep any of them.
    const keep = dropped === droppedBefore;
    if (keep && entries.size + hashes.length > entriesMax) forget(undefined);
    for (const hash of keep ? hashes : []) {
      const node = found.get(hash);
      entries.set(hash, { node, atMs: performance.now() });
      if (node !== undefined) hashByNode.set(node.nodeId, hash);
    }
    return found;
  });

  return {
    authenticate(authKey) {
      if (!authKeyShape.test(authKey)) return undefined;
      // In one call, which makes no object: a request comes by here, whatever it is.
      const hash = digest('sha256', authKey, 'base64');
      const entry = entries.get(hash);
      if (entry !== undefined && isFresh(entry)) return entry.node;
      return lookUp(hash).then((found) => found.get(hash));
    },
    close: () => listener.close(),
  };
}

async function selectNodes(
  pool: pg.Pool,
  hashes: readonly string[],
): Promise<Map<string, KnownNode>> {
  const { rows } = await pool.query<KnownNode & { hash: string }>(
    `SELECT id AS "nodeId", revision, encode(content_hash, 'hex') AS "contentHash",
       translate(encode(auth_key_hash, 'base64'), E'\\n', '') AS hash
     FROM nodes
     WHERE revoked_at IS NULL
       AND auth_key_hash = ANY (SELECT decode(h, 'base64') FROM unnest($1::text[]) AS h)`,
    [hashes],
  );
  return new Map(rows.map(({ hash, ...node }) => [hash, node]));
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
