import assert from 'node:assert/strict';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import { nodeLockClass } from '../stores/locks.ts';
import { configKey, type KeptConfig, keepConfigs } from './config-store.ts';
import { packContent, packSettings, type RenderedContent, renderContent } from './content.ts';
import { type LoadedNode, loadNodes } from './read-rows.ts';
import { commitPublished, type Published, recordFailures, recordUnchanged } from './record.ts';

export interface PublishDeps {
  pool: pg.Pool;
  redis: Redis;
  /** First part of every Redis key. */
  prefix: string;
}

export interface PublishOutcome {
  /** Nodes with a new revision. */
  published: number[];
  /** Nodes whose render came out the same: only their mark went. */
  unchanged: number[];
  /** Nodes that could not be rendered; they keep what they run, and are tried again later. */
  failed: { nodeId: number; error: unknown }[];
}

/**
 * Gives nodes that are marked as changed their new revision, where their bytes differ.
 *
 * Each node is under its advisory lock from the read to the commit, so that it is rendered in one
 * place at a time. Not under its row's lock: a heartbeat with a new address updates it. A node that another
 * process renders just now, or that is not due (unchanged, revoked, published less than a second
 * ago), is left out. All the work is done on one connection: where it dies, the locks are free and
 * nothing of this can be committed any more. What was put into Redis by then has the content's hash
 * in its key, so it can never be taken for other bytes.
 */
export async function publishDue(
  deps: PublishDeps,
  nodeIds: readonly number[],
): Promise<PublishOutcome> {
  const outcome: PublishOutcome = { published: [], unchanged: [], failed: [] };
  await withNodeLocks(deps.pool, nodeIds, 'skip', async (client, lockedIds) => {
    const loaded = await loadNodes(client, lockedIds);
    const changed: Rendered[] = [];
    const unchanged: LoadedNode[] = [];
    for (const node of loaded.values()) {
      if (!node.state.due) continue;
      try {
        const content = renderContent(node.rows);
        if (content.hash === node.state.contentHash) unchanged.push(node);
        else changed.push({ node, content });
      } catch (error) {
        outcome.failed.push({ nodeId: node.rows.node.id, error });
      }
      // A large batch must not keep the process from its other work.
      await new Promise((resume) => setImmediate(resume));
    }
    const failed = outcome.failed.map(({ nodeId, error }) => {
      const node = loaded.get(nodeId);
      assert(node !== undefined);
      return { nodeId, changeSeq: node.state.changeSeq, error };
    });
    if (failed.length > 0) await recordFailures(client, failed);
    if (unchanged.length > 0) {
      outcome.unchanged = await recordUnchanged(client, unchanged);
    }
    if (changed.length > 0) {
      outcome.published = (await publishRendered(deps, client, changed)).map((one) => one.nodeId);
    }
  });
  return outcome;
}

/**
 * The current bytes of one node where nobody keeps them: rendered anew, as the revision it has where
 * they come out the same, else published as a new one. Waits for whoever renders the node now.
 * Undefined where there is no such node.
 * @throws CoreError INTERNAL where its settings cannot be rendered.
 */
export async function publishForReader(
  deps: PublishDeps,
  nodeId: number,
): Promise<KeptConfig | undefined> {
  let config: KeptConfig | undefined;
  await withNodeLocks(deps.pool, [nodeId], 'wait', async (client) => {
    const node = (await loadNodes(client, [nodeId])).get(nodeId);
    if (node === undefined) return;
    const content = renderContent(node.rows);
    const { contentHash } = node.state;
    if (contentHash === null || content.hash !== contentHash) {
      const [published] = await publishRendered(deps, client, [{ node, content }]);
      // Deleted meanwhile: under the lock, nobody else gives it a revision.
      if (published === undefined) return;
      config = published;
      return;
    }
    const { revision } = node.rows.node;
    config = { nodeId, revision, hash: content.hash, gzip: await packContent(content, revision) };
    await keepConfigs(deps, [config]);
  });
  return config;
}

interface Rendered {
  node: LoadedNode;
  content: RenderedContent;
}

/** Puts the bytes into Redis, then commits the revisions; in this order, so that they are there. */
async function publishRendered(
  deps: PublishDeps,
  client: pg.PoolClient,
  rendered: readonly Rendered[],
): Promise<KeptConfig[]> {
  const published = await Promise.all(rendered.map(prepare));
  await keepConfigs(deps, published);
  const committed = new Set(await commitPublished(client, published));
  const done = published.filter((one) => committed.has(one.nodeId));
  // For a minute yet, for a process that has not heard of the new revision.
  await keepConfigs(
    deps,
    [],
    done.flatMap((one) => previousKey(deps.prefix, one)),
  );
  return done.map(({ nodeId, revision, hash, gzip }) => ({ nodeId, revision, hash, gzip }));
}

async function prepare({ node, content }: Rendered): Promise<Published & KeptConfig> {
  const { state, rows } = node;
  // A node is created at revision 1, which the first render is then given.
  const revision = state.contentHash === null ? rows.node.revision : rows.node.revision + 1;
  return {
    nodeId: rows.node.id,
    revision,
    hash: content.hash,
    bytes: content.bytes,
    settings: packSettings(rows),
    state,
    previousRevision: rows.node.revision,
    gzip: await packContent(content, revision),
  };
}

function previousKey(prefix: string, one: Published): string[] {
  const { contentHash } = one.state;
  if (contentHash === null) return [];
  return [configKey(prefix, one.nodeId, one.previousRevision, contentHash)];
}

async function withNodeLocks(
  pool: pg.Pool,
  nodeIds: readonly number[],
  held: 'skip' | 'wait',
  work: (client: pg.PoolClient, lockedIds: number[]) => Promise<void>,
): Promise<void> {
  const client = await pool.connect();
  let failed = true;
  try {
    const take = held === 'skip' ? takeFreeSql : takeAllSql;
    const { rows } = await client.query<{ id: number }>(take, [nodeLockClass, nodeIds]);
    const lockedIds = rows.map((row) => row.id);
    if (lockedIds.length > 0) await work(client, lockedIds);
    await client.query('SELECT pg_advisory_unlock($1, id) FROM unnest($2::integer[]) AS id', [
      nodeLockClass,
      lockedIds,
    ]);
    failed = false;
  } finally {
    // Closing the connection is what gives the locks back after a failure.
    client.release(failed);
  }
}

const takeFreeSql = `SELECT id FROM unnest($2::integer[]) AS id
  WHERE pg_try_advisory_lock($1::integer, id)`;
const takeAllSql = `SELECT id FROM unnest($2::integer[]) AS id,
  LATERAL (SELECT pg_advisory_lock($1::integer, id)) AS locked`;
