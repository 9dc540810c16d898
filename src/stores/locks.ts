import type pg from 'pg';

// Any numbers distinct from the other advisory locks of Core.
const linksLock = 7_233_002;
const countersLock = 7_233_003;
/** First of the two numbers of a node's lock, which is held while it is rendered and published. */
export const nodeLockClass = 7_233_004;
const fleetLock = 7_233_005;
const outboundTagsLock = 7_233_006;
const segmentIdsLock = 7_233_007;

/**
 * Held until the transaction ends by whoever adds one side of the subscription links. Every
 * subscription has a link to every protocol, and two transactions that add a subscription and a
 * protocol side by side would not see each other's row: the link between the two would be missing
 * for good. Whoever deletes subscriptions or changes links takes it too, so as not to hold rows that
 * a protocol asks for while it holds its node. Subscriptions share the lock among themselves; a protocol waits for them and they for it.
 */
export async function lockLinks(
  client: pg.PoolClient,
  adding: 'subscriptions' | 'protocols',
): Promise<void> {
  const shared = adding === 'subscriptions' ? '_shared' : '';
  await client.query(`SELECT pg_advisory_xact_lock${shared}($1)`, [linksLock]);
}

/**
 * Held until the transaction ends by whoever updates the counters of many subscriptions. Streams
 * are settled side by side and share subscriptions; two plain UPDATEs take their row locks in
 * whatever order their plans have, and so could each wait for the other. They would wait for each
 * other's rows anyway, and locking the rows in order beforehand takes twice as long.
 */
export async function lockCounters(client: pg.PoolClient): Promise<void> {
  await client.query('SELECT pg_advisory_xact_lock($1)', [countersLock]);
}

/** Held until the transaction ends by whoever applies a fleet file: one at a time. */
export async function lockFleet(client: pg.PoolClient): Promise<void> {
  await client.query('SELECT pg_advisory_xact_lock($1)', [fleetLock]);
}

/**
 * Held until the transaction ends by whoever adds or prunes tags that nobody configured: a node has so
 * many of them at most, and two streams may settle rows of one node while the shards change. One lock for
 * all nodes, since a group may bring first tags of thousands, and a lock of each would be too many.
 */
export async function lockOutboundTags(client: pg.PoolClient): Promise<void> {
  await client.query('SELECT pg_advisory_xact_lock($1)', [outboundTagsLock]);
}

/** Held until the transaction ends by whoever moves the sequence of segment ids up: one at a time. */
export async function lockSegmentIds(client: pg.PoolClient): Promise<void> {
  await client.query('SELECT pg_advisory_xact_lock($1)', [segmentIdsLock]);
}
