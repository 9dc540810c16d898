import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { ClickHouseClient } from '../../../src/stores/clickhouse.ts';
import type { IngestKind } from '../simulator/ledger.ts';
import { type Post, sharedTag, tagOf } from './posts.ts';
import type { FaultWorld } from './world.ts';

export interface FaultStores {
  pool: pg.Pool;
  redis: Redis;
  clickhouse: ClickHouseClient;
}

/** The kinds of faults that the final table counts. */
export type ViolationKind =
  /** Acked, but not there. */
  | 'lost'
  /** There more than once. */
  | 'doubled'
  /** There in part. */
  | 'partial'
  /** There although every attempt was turned away, or there with other bytes. */
  | 'wrong'
  | 'counter'
  | 'segment'
  | 'job'
  | 'other';

export interface Violation {
  kind: ViolationKind;
  text: string;
}

/** What the stores have of one post. */
interface Found {
  rows: number;
  /** Different rows among these. */
  distinct: number;
  bytesUp: number;
  bytesDown: number;
}

const nothing: Found = { rows: 0, distinct: 0, bytesUp: 0, bytesDown: 0 };

/**
 * Compares the stores with the ledger. It checks each of `posts` by itself. It compares counters with the
 * sums of everything ever stored, so `allPosts` has the posts of all rounds.
 */
export async function findViolations(
  stores: FaultStores,
  given: { posts: readonly Post[]; allPosts: readonly Post[]; world: FaultWorld; prefix: string },
): Promise<{ violations: Violation[]; rows: number }> {
  const { posts, allPosts, world, prefix } = given;
  const outbounds = await readOutbounds(stores.pool, world);
  const found: Record<IngestKind, ReadonlyMap<number, Found>> = {
    usage: await readUsage(stores.clickhouse, posts),
    session: await readSessions(stores.clickhouse, posts),
    outbound: countOutbounds(allPosts, outbounds),
  };
  const violations = posts.flatMap((post) => judge(post, found[post.kind].get(post.n) ?? nothing));
  violations.push(
    ...compareShared(allPosts, found.outbound, outbounds),
    ...(await compareSubscriptions(stores)),
    ...(await findUnsettled(stores.pool)),
    ...(await findFailedJobs(stores.redis, prefix)),
    ...judgeRejected(posts, found.usage, await readRejected(stores.pool)),
  );
  const rows = posts.reduce((sum, post) => sum + (found[post.kind].get(post.n)?.rows ?? 0), 0);
  return { violations, rows };
}

/** A post must be there once. Without a 200 it may also be missing. */
function judge(post: Post, found: Found): Violation[] {
  const violation = (kind: ViolationKind): Violation[] => [
    {
      kind,
      text:
        `${kind}: post ${post.n} (round ${post.round}, ${post.kind}, node ${post.nodeId}, ` +
        `${post.outcome}) has ${found.rows} rows, ${found.distinct} different, of ${post.rows}`,
    },
  ];
  if (found.rows === 0) return post.outcome === 'acked' ? violation('lost') : [];
  if (found.rows > found.distinct) return violation('doubled');
  if (found.rows < post.rows) return violation('partial');
  const isWhole =
    found.rows === post.rows &&
    found.bytesUp === post.bytesUp &&
    found.bytesDown === post.bytesDown;
  return isWhole && post.outcome !== 'undelivered' ? [] : violation('wrong');
}

/** If a post is in the table, its poisoned rows must be in rejected_rows once; otherwise not at all. */
function judgeRejected(
  posts: readonly Post[],
  found: ReadonlyMap<number, Found>,
  rejected: ReadonlyMap<number, number>,
): Violation[] {
  return posts.flatMap((post) => {
    const rows = rejected.get(post.n) ?? 0;
    const stored = post.kind === 'usage' && (found.get(post.n)?.rows ?? 0) > 0;
    const due = stored ? post.poisoned : 0;
    if (rows === due) return [];
    const text = `rejected: post ${post.n} (round ${post.round}) has ${rows} rows in rejected_rows, not ${due}`;
    return [{ kind: rows > due ? ('doubled' as const) : ('lost' as const), text }];
  });
}

/** Rejected rows, by post. */
async function readRejected(pool: pg.Pool): Promise<Map<number, number>> {
  const { rows } = await pool.query<{ n: number; rows: number }>(
    `SELECT (row_json->>'node_protocol_id')::bigint AS n, count(*)::integer AS rows
     FROM rejected_rows WHERE kind = 'usage' GROUP BY n`,
  );
  return new Map(rows.map((row) => [row.n, row.rows]));
}

async function readUsage(
  clickhouse: ClickHouseClient,
  posts: readonly Post[],
): Promise<Map<number, Found>> {
  return readFound(
    clickhouse,
    posts,
    `SELECT node_protocol_id AS n, count() AS rows, uniqExact(user_id) AS distinct,
       sum(bytes_up) AS bytesUp, sum(bytes_down) AS bytesDown
     FROM usage WHERE node_protocol_id BETWEEN {first:UInt64} AND {last:UInt64} GROUP BY n`,
  );
}

async function readSessions(
  clickhouse: ClickHouseClient,
  posts: readonly Post[],
): Promise<Map<number, Found>> {
  return readFound(
    clickhouse,
    posts,
    `SELECT user_id AS n, count() AS rows, uniqExact(occurred_at) AS distinct,
       0 AS bytesUp, 0 AS bytesDown
     FROM session_events WHERE user_id BETWEEN {first:UInt64} AND {last:UInt64} GROUP BY n`,
  );
}

async function readFound(
  clickhouse: ClickHouseClient,
  posts: readonly Post[],
  query: string,
): Promise<Map<number, Found>> {
  const result = await clickhouse.query({
    query,
    query_params: { first: posts[0]?.n ?? 0, last: posts.at(-1)?.n ?? 0 },
    format: 'JSONEachRow',
  });
  const rows = await result.json<Found & { n: number }>();
  return new Map(rows.map((row) => [row.n, row]));
}

interface Bytes {
  bytesUp: number;
  bytesDown: number;
}

interface Outbounds {
  /** By post: the counter of its own tag. It has the post's bytes as often as Core counted the post. */
  own: Map<number, Bytes>;
  /** By node: the counter that all posts of the node add to. */
  shared: Map<number, Bytes>;
}

async function readOutbounds(pool: pg.Pool, world: FaultWorld): Promise<Outbounds> {
  const { rows } = await pool.query<{ node: number; tag: string; up: number; down: number }>(
    `SELECT node_id AS node, tag, traffic_bytes_up AS up, traffic_bytes_down AS down
     FROM node_outbounds WHERE node_id = ANY ($1::integer[])`,
    [world.nodes.map((node) => node.nodeId)],
  );
  const outbounds: Outbounds = { own: new Map(), shared: new Map() };
  for (const { node, tag, up, down } of rows) {
    if (tag === sharedTag) outbounds.shared.set(node, { bytesUp: up, bytesDown: down });
    else {
      const n = Number(tag.slice(tagOf(0).length - 1));
      outbounds.own.set(n, { bytesUp: up, bytesDown: down });
    }
  }
  return outbounds;
}

/** How often Core counted each outbound post: its own counter divided by what it sent. */
function countOutbounds(allPosts: readonly Post[], outbounds: Outbounds): Map<number, Found> {
  const found = new Map<number, Found>();
  for (const post of allPosts) {
    const bytes = outbounds.own.get(post.n);
    if (bytes === undefined) continue;
    found.set(post.n, { rows: bytes.bytesUp / post.bytesUp, distinct: 1, ...bytes });
  }
  return found;
}

/** Compares the counter that all outbound posts of a node add to with the posts that were counted. */
function compareShared(
  allPosts: readonly Post[],
  found: ReadonlyMap<number, Found>,
  outbounds: Outbounds,
): Violation[] {
  const violations: Violation[] = [];
  const due = new Map<number, Bytes>();
  for (const post of allPosts) {
    const times = post.kind === 'outbound' ? (found.get(post.n)?.rows ?? 0) : 0;
    if (times === 0) continue;
    const sum = due.get(post.nodeId) ?? { bytesUp: 0, bytesDown: 0 };
    sum.bytesUp += post.shared.bytesUp * times;
    sum.bytesDown += post.shared.bytesDown * times;
    due.set(post.nodeId, sum);
  }
  for (const [nodeId, sum] of due) {
    const counter = outbounds.shared.get(nodeId) ?? { bytesUp: 0, bytesDown: 0 };
    if (counter.bytesUp === sum.bytesUp && counter.bytesDown === sum.bytesDown) continue;
    violations.push({
      kind: 'counter',
      text:
        `counter: outbound ${sharedTag} of node ${nodeId} is ${counter.bytesUp}/${counter.bytesDown}, ` +
        `its posts add up to ${sum.bytesUp}/${sum.bytesDown}`,
    });
  }
  return violations;
}

/** Compares every subscription's counter with the sum of its rows. */
async function compareSubscriptions(stores: FaultStores): Promise<Violation[]> {
  const result = await stores.clickhouse.query({
    query: `SELECT subscription_id AS id, sum(bytes_up) AS up, sum(bytes_down) AS down
      FROM usage GROUP BY id`,
    format: 'JSONEachRow',
  });
  const sums = new Map(
    (await result.json<{ id: number; up: number; down: number }>()).map((row) => [row.id, row]),
  );
  const { rows } = await stores.pool.query<{ id: number; up: number; down: number }>(
    `SELECT id, traffic_bytes_up AS up, traffic_bytes_down AS down FROM subscriptions ORDER BY id`,
  );
  return rows.flatMap(({ id, up, down }) => {
    const sum = sums.get(id) ?? { up: 0, down: 0 };
    if (sum.up === up && sum.down === down) return [];
    const text = `counter: subscription ${id} is ${up}/${down}, its rows add up to ${sum.up}/${sum.down}`;
    return [{ kind: 'counter' as const, text }];
  });
}

async function findUnsettled(pool: pg.Pool): Promise<Violation[]> {
  const { rows } = await pool.query<{ id: number; stream: string; lastError: string | null }>(
    `SELECT id, stream, last_error AS "lastError" FROM segments WHERE state <> 'settled'`,
  );
  return rows.map(({ id, stream, lastError }) => ({
    kind: 'segment' as const,
    text: `segment: ${id} of ${stream} is not settled (${lastError ?? 'no error'})`,
  }));
}

async function findFailedJobs(redis: Redis, prefix: string): Promise<Violation[]> {
  const violations: Violation[] = [];
  for (const queue of ['load', 'load-late', 'upkeep']) {
    const base = `{${prefix}}:bull:${queue}`;
    for (const id of await redis.zrange(`${base}:failed`, '0', '4')) {
      const [name, reason] = await redis.hmget(`${base}:${id}`, 'name', 'failedReason');
      violations.push({ kind: 'job', text: `job: ${queue} ${name} failed: ${reason}` });
    }
  }
  return violations;
}
