import type { Redis } from 'ioredis';
import type pg from 'pg';
import { advisoryLocks } from '../stores/advisory-locks.ts';
import { configKey, type KeptConfig, keepConfigs } from './config-store.ts';
import { compressContent, encodeSettings, type RenderedContent, renderContent } from './content.ts';
import { type PublishState, type ReadNode, readNodes } from './read-rows.ts';
import { commitRevisions, type NewRevision, recordFailures, recordUnchanged } from './record.ts';

interface PublishDeps {
  pool: pg.Pool;
  redis: Redis;
  /** First part of every Redis key. */
  prefix: string;
}

export interface PublishOutcome {
  /** Nodes with a new revision. */
  published: number[];
  /** Nodes whose bytes have not changed; they only lost their mark. */
  unchanged: number[];
  /** Nodes that could not be rendered. They keep what they run, and a later sweep tries again. */
  failed: { nodeId: number; error: unknown }[];
}

/**
 * Renders nodes that are marked as changed, and publishes those whose bytes differ.
 *
 * An advisory lock covers each node from the read to the commit, so that two processes never render
 * it at once. A lock on its row would make heartbeats with a new address wait. This leaves out nodes
 * that another process renders, and nodes that are not due (unchanged, revoked, or published less
 * than a second ago).
 *
 * Locks and commits are on one connection. If it dies, Postgres frees the locks, and nothing of this
 * can be committed any more. What is in Redis by then has the content's hash in its key, so nobody
 * can take it for other bytes.
 */
export async function publishDue(
  deps: PublishDeps,
  nodeIds: readonly number[],
): Promise<PublishOutcome> {
  const outcome: PublishOutcome = { published: [], unchanged: [], failed: [] };
  await withNodeLocks(deps.pool, nodeIds, 'skip', async (client, lockedIds) => {
    const nodes = await readNodes(client, lockedIds);
    const { changed, unchanged, failed } = await renderDue([...nodes.values()]);
    if (failed.length > 0) await recordFailures(client, failed);
    outcome.failed = failed.map(({ nodeId, error }) => ({ nodeId, error }));
    if (unchanged.length > 0) outcome.unchanged = await recordUnchanged(client, unchanged);
    if (changed.length > 0) {
      outcome.published = (await publishRendered(deps, client, changed)).map((one) => one.nodeId);
    }
  });
  return outcome;
}

interface Renderings {
  changed: Rendered[];
  unchanged: ReadNode[];
  failed: { nodeId: number; changeSeq: number; error: unknown }[];
}

async function renderDue(nodes: readonly ReadNode[]): Promise<Renderings> {
  const renderings: Renderings = { changed: [], unchanged: [], failed: [] };
  for (const node of nodes) {
    const { due, contentHash, changeSeq } = node.state;
    if (!due) continue;
    try {
      const content = renderContent(node.rows);
      if (content.hash === contentHash) renderings.unchanged.push(node);
      else renderings.changed.push({ node, content });
    } catch (error) {
      renderings.failed.push({ nodeId: node.rows.node.id, changeSeq, error });
    }
    // Between two nodes of a large batch the process does its other work.
    await new Promise((resume) => setImmediate(resume));
  }
  return renderings;
}

/**
 * Renders one node whose bytes nobody keeps. If they are those of its current revision, that is the
 * answer. Otherwise this publishes a new revision. If another process renders the node, this waits
 * for it. Undefined if there is no such node.
 * @throws CoreError INTERNAL if its settings cannot be rendered.
 */
export async function publishForReader(
  deps: PublishDeps,
  nodeId: number,
): Promise<KeptConfig | undefined> {
  let config: KeptConfig | undefined;
  await withNodeLocks(deps.pool, [nodeId], 'wait', async (client) => {
    const node = (await readNodes(client, [nodeId])).get(nodeId);
    if (node === undefined) return;
    const content = renderContent(node.rows);
    const { contentHash } = node.state;
    if (contentHash === null || content.hash !== contentHash) {
      const [published] = await publishRendered(deps, client, [{ node, content }]);
      // An operator has deleted the node: under the lock, nobody else gives it a revision.
      if (published === undefined) return;
      config = published;
      return;
    }
    const { revision } = node.rows.node;
    config = {
      nodeId,
      revision,
      hash: content.hash,
      gzip: await compressContent(content, revision),
    };
    await keepConfigs(deps, [config]);
  });
  return config;
}

interface Rendered {
  node: ReadNode;
  content: RenderedContent;
}

/** Puts the bytes into Redis before it commits, so that whoever hears of a revision finds its bytes. */
async function publishRendered(
  deps: PublishDeps,
  client: pg.PoolClient,
  rendered: readonly Rendered[],
): Promise<KeptConfig[]> {
  const revisions = await Promise.all(rendered.map(prepareRevision));
  await keepConfigs(deps, revisions);
  const committedIds = new Set(await commitRevisions(client, revisions));
  const committed = revisions.filter((one) => committedIds.has(one.nodeId));
  // The replaced ones stay for a minute, for processes that have not heard of the new revisions.
  const replacedKeys = committed.flatMap((one) => previousKey(deps.prefix, one));
  await keepConfigs(deps, [], replacedKeys);
  return committed.map(({ nodeId, revision, hash, gzip }) => ({ nodeId, revision, hash, gzip }));
}

async function prepareRevision({ node, content }: Rendered): Promise<NewRevision & KeptConfig> {
  const { state, rows } = node;
  const revision = nextRevision(rows.node.revision, state);
  return {
    nodeId: rows.node.id,
    revision,
    hash: content.hash,
    bytes: content.bytes,
    settings: encodeSettings(rows),
    state,
    previousRevision: rows.node.revision,
    gzip: await compressContent(content, revision),
  };
}

/** Further than this above the newest revision, a node's report is no number that a Core ever issued. */
const skippedMax = 1_000_000;

/**
 * A new node has the number 1 already, and its first rendering gets that number. If the node runs a
 * revision that this database never issued, because the database was restored from an older backup, the
 * next number is above it: otherwise two configurations would share a number.
 */
function nextRevision(current: number, state: PublishState): number {
  const reported = state.reportedRevision ?? 0;
  const usual = state.contentHash === null ? current : current + 1;
  const wasRestored = reported >= usual && reported - current <= skippedMax;
  return wasRestored ? reported + 1 : usual;
}

function previousKey(prefix: string, one: NewRevision): string[] {
  const { contentHash } = one.state;
  if (contentHash === null) return [];
  return [configKey(prefix, one.nodeId, one.previousRevision, contentHash)];
}

async function withNodeLocks(
  pool: pg.Pool,
  nodeIds: readonly number[],
  lockedNodes: 'skip' | 'wait',
  work: (client: pg.PoolClient, lockedIds: number[]) => Promise<void>,
): Promise<void> {
  const client = await pool.connect();
  let failed = true;
  try {
    const take = lockedNodes === 'skip' ? takeFreeSql : takeAllSql;
    const { rows } = await client.query<{ id: number }>(take, [advisoryLocks.node, nodeIds]);
    const lockedIds = rows.map((row) => row.id);
    if (lockedIds.length > 0) await work(client, lockedIds);
    await client.query('SELECT pg_advisory_unlock($1, id) FROM unnest($2::integer[]) AS id', [
      advisoryLocks.node,
      lockedIds,
    ]);
    failed = false;
  } finally {
    // After a failure this closes the connection, which frees the locks.
    client.release(failed);
  }
}

const takeFreeSql = `SELECT id FROM unnest($2::integer[]) AS id
  WHERE pg_try_advisory_lock($1::integer, id)`;
const takeAllSql = `SELECT id FROM unnest($2::integer[]) AS id,
  LATERAL (SELECT pg_advisory_lock($1::integer, id)) AS locked`;
