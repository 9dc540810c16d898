import type pg from 'pg';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';
import { inTransaction } from '../stores/postgres.ts';

/**
 * Moves the sequence of segment ids up to the milliseconds of the clock. ClickHouse knows segments by
 * their ids, so an id must never come twice. But somebody may empty Postgres or restore a backup of
 * it while ClickHouse keeps its rows. A worker may then run alone, so every worker does this at its
 * start, and so do `core up` and `core migrate`.
 *
 * The sequence only goes up. Processes that start at once take turns, because one that read its clock
 * first and wrote last would set the sequence back.
 * @throws what Postgres answers; 42P01 if the database has no tables of Core, 42501 if the role may not
 * set the sequence. The worker does not start then, because an id could come twice.
 */
export async function advanceSegmentIds(pool: pg.Pool): Promise<void> {
  await inTransaction(pool, async (client) => {
    await lockUntilCommit(client, advisoryLocks.segmentIds);
    await client.query(
      `SELECT setval('segments_id_seq', clock.ms)
       FROM segments_id_seq,
         (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) AS clock
       WHERE clock.ms > segments_id_seq.last_value`,
    );
  });
}
