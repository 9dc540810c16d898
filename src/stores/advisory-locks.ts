import type pg from 'pg';

/**
 * The numbers of Core's advisory locks. A database has one space of them, and two locks of one number would
 * wait for each other. So all numbers are here. What a lock protects is written at the function that takes
 * it. The lock of a stream is not here: its number is a hash of the stream's name.
 */
export const advisoryLocks = {
  migrations: 7_233_001,
  links: 7_233_002,
  counters: 7_233_003,
  /** The first of two numbers; the second one is the node's id. */
  node: 7_233_004,
  fleet: 7_233_005,
  outboundTags: 7_233_006,
  segmentIds: 7_233_007,
  credentials: 7_233_011,
  imports: 7_233_012,
} as const;

/** Waits for a lock and holds it until the client's transaction ends. Shared holders exclude only others. */
export async function lockUntilCommit(
  client: pg.PoolClient,
  lock: number,
  mode: 'exclusive' | 'shared' = 'exclusive',
): Promise<void> {
  const suffix = mode === 'shared' ? '_shared' : '';
  await client.query(`SELECT pg_advisory_xact_lock${suffix}($1)`, [lock]);
}
