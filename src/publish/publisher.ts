import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { Logger } from '../log.ts';
import { changesChannel } from '../nodes/channels.ts';
import { listen } from '../stores/listen.ts';
import { publishDue } from './publish.ts';
import { dueSql } from './read-rows.ts';

/** How often the publisher looks for marked nodes, in case it has missed a notification. */
const sweepEveryMs = 1_000;
/** Nodes that one sweep takes. If there are more, the next sweep follows at once. */
const sweepNodesMax = 20_000;
const batchNodesMax = 250;
/** A worker reads the nodes of a batch together, so the size of their configurations limits it. */
const batchBytesMax = 4_194_304;
const batchesAtOnce = 2;

interface Publisher {
  /** Waits for the batches that have begun. */
  close(): Promise<void>;
}

/**
 * Publishes marked nodes: when Postgres notifies a change, and once a second for missed notifications
 * and for nodes whose last revision is less than a second old. The nodes that have waited longest come
 * first. Several workers may run a publisher at once, since each skips nodes that another one renders.
 * After a failure, such as a store that is away, the next sweep tries again.
 */
export function startPublisher(options: {
  /** A pool of its own, so that large reads take no connection from the load. */
  pool: pg.Pool;
  redis: Redis;
  prefix: string;
  databaseUrl: string;
  log: Logger;
}): Publisher {
  const { log } = options;
  let closed = false;
  let running: Promise<void> | undefined;
  let again = false;
  let timer: NodeJS.Timeout | undefined;

  const sweep = async (): Promise<void> => {
    do {
      again = false;
      clearTimeout(timer);
      let waitMs = sweepEveryMs;
      try {
        const due = await selectDue(options.pool);
        await publishAll(due.nodes);
        if (due.nodes.length === sweepNodesMax) again = true;
        waitMs = Math.min(sweepEveryMs, due.nextMs ?? sweepEveryMs);
      } catch (err) {
        log.warn({ err }, 'changes not published, will retry');
      }
      if (!closed) timer = setTimeout(wake, waitMs);
    } while (again && !closed);
    running = undefined;
  };
  const wake = (): void => {
    again = true;
    if (!closed) running ??= sweep();
  };

  const publishAll = async (nodes: readonly DueNode[]): Promise<void> => {
    const batches = batchesOf(nodes);
    const next = async (): Promise<void> => {
      for (let batch = batches.shift(); batch !== undefined && !closed; batch = batches.shift()) {
        const { failed } = await publishDue(options, batch);
        for (const { nodeId, error } of failed) {
          log.error({ nodeId, err: error }, 'node cannot be rendered, it keeps what it runs');
        }
      }
    };
    const ends = await Promise.allSettled(Array.from({ length: batchesAtOnce }, next));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  };

  const listener = listen(options.databaseUrl, changesChannel, log, wake);
  wake();
  return {
    async close() {
      closed = true;
      clearTimeout(timer);
      await listener.close();
      await running;
      clearTimeout(timer);
    },
  };
}

interface DueNode {
  id: number;
  /** Size of its last configuration, or an estimate if it has none. */
  bytes: number;
}

/** The nodes to publish now, and how long until the next one, if that is within a second. */
async function selectDue(pool: pg.Pool): Promise<{ nodes: DueNode[]; nextMs: number | undefined }> {
  const { rows } = await pool.query<DueNode & { due: boolean; waitMs: number }>(
    // The links decide the size of a configuration that was never rendered. The groups are counted once, and
    // only if there is such a node.
    `WITH sizes AS MATERIALIZED (
       SELECT group_id, count(*) AS links FROM subscription_groups GROUP BY group_id
     )
     SELECT id, CASE WHEN content_bytes IS NULL THEN (
         SELECT 4096 + 400 * coalesce(sum(sizes.links), 0)::float8 FROM node_protocols p
         JOIN protocol_groups pg ON pg.node_protocol_id = p.id
         JOIN sizes ON sizes.group_id = pg.group_id WHERE p.node_id = n.id)
       ELSE content_bytes END AS bytes, ${dueSql} AS due, greatest(0, ceil(1000 * extract(epoch
       FROM n.published_at + interval '1 second' - clock_timestamp())))::integer AS "waitMs"
     FROM nodes n WHERE n.change_seq > n.published_seq AND n.revoked_at IS NULL
     ORDER BY changed_at, id LIMIT $1`,
    [sweepNodesMax],
  );
  const waits = rows.filter((row) => !row.due && row.waitMs > 0).map((row) => row.waitMs);
  return {
    nodes: rows.filter((row) => row.due),
    nextMs: waits.length === 0 ? undefined : Math.min(...waits) + 1,
  };
}

/** Batches of small nodes, and a batch of its own for each large one. */
function batchesOf(nodes: readonly DueNode[]): number[][] {
  const batches: number[][] = [];
  let open: number[] = [];
  let openBytes = 0;
  for (const { id, bytes } of nodes) {
    if (bytes > batchBytesMax) {
      batches.push([id]);
      continue;
    }
    if (open.length === batchNodesMax || openBytes + bytes > batchBytesMax) {
      if (open.length > 0) batches.push(open);
      open = [];
      openBytes = 0;
    }
    open.push(id);
    openBytes += bytes;
  }
  if (open.length > 0) batches.push(open);
  return batches;
}
