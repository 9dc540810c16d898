import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { Logger } from '../log.ts';
import { changesChannel, listen } from '../stores/listen.ts';
import { publishDue } from './publish.ts';
import { dueSql } from './read-rows.ts';

/** How often marked nodes are looked for without a notification: one may have been missed. */
const sweepEveryMs = 1_000;
/** Nodes that one sweep takes; the rest are the next one's, at once. */
const sweepMax = 20_000;
/** A batch reads its nodes together, as long as what they were last time was not more than this. */
const batchNodesMax = 250;
const batchBytesMax = 4_194_304;
const batchesAtOnce = 2;

export interface Publisher {
  /** Waits for the batches under way. */
  close(): Promise<void>;
}

/**
 * Publishes marked nodes: as soon as a change is notified, and once a second for what was missed
 * and for nodes that had to wait out their second. Those that have waited longest come first. Any
 * number of workers may run it: a node that another one renders is skipped. A failure is logged;
 * the next sweep tries again, so a store that is away is waited for.
 *
 * The pool is its own: a large read must not take the connections of the load.
 */
export function startPublisher(options: {
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
        if (due.nodes.length === sweepMax) again = true;
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
  /** Size of its last configuration, or an estimate. */
  bytes: number;
}

/** The nodes to publish now, and when the next one is due, where one is within the second. */
async function selectDue(pool: pg.Pool): Promise<{ nodes: DueNode[]; nextMs: number | undefined }> {
  const { rows } = await pool.query<DueNode & { due: boolean; waitMs: number }>(
    // What was never rendered is as large as its links make it.
    `SELECT id, CASE WHEN content_bytes IS NULL THEN (
         SELECT 4096 + 400 * count(*) FROM node_protocols p
         JOIN subscription_links l ON l.node_protocol_id = p.id WHERE p.node_id = n.id)
       ELSE content_bytes END AS bytes, ${dueSql} AS due, greatest(0, ceil(1000 * extract(epoch
       FROM n.published_at + interval '1 second' - clock_timestamp())))::integer AS "waitMs"
     FROM nodes n WHERE n.change_seq > n.published_seq AND n.revoked_at IS NULL
     ORDER BY changed_at, id LIMIT $1`,
    [sweepMax],
  );
  const waits = rows.filter((row) => !row.due && row.waitMs > 0).map((row) => row.waitMs);
  return {
    nodes: rows.filter((row) => row.due),
    nextMs: waits.length === 0 ? undefined : Math.min(...waits) + 1,
  };
}

/** Nodes together as long as their sizes allow, and the large ones each by itself. */
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
