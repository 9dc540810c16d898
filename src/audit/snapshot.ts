import type pg from 'pg';

/** Longest that seal and settle may be made to wait; their transactions take milliseconds. */
const lockTimeoutMs = 3_000;

/**
 * Runs `work` in a read-only transaction that sees Postgres at one moment, a moment at which nobody
 * is sealing or settling. So every segment id up to the largest it sees is either seen or was never
 * used: no segment can turn up below that id later.
 *
 * The moment is made by a short lock on `segments`, taken on a second connection, which exports its
 * snapshot and lets the lock go; writers wait for some milliseconds and then go on.
 *
 * Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
 */
export async function inQuietSnapshot<T>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<T>,
): Promise<T> {
  const reader = await pool.connect();
  let failed = true;
  try {
    await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    await withExportedSnapshot(pool, async (snapshot) => {
      // SET takes no parameters; the name is Postgres' own: hexadecimal digits and dashes.
      await reader.query(`SET TRANSACTION SNAPSHOT '${snapshot.replaceAll(/[^0-9A-F-]/gi, '')}'`);
    });
    const result = await work(reader);
    await reader.query('COMMIT');
    failed = false;
    return result;
  } finally {
    // A connection whose transaction may still be open is closed, not given to the next caller.
    reader.release(failed);
  }
}

/** The snapshot can be imported for as long as `take` runs. */
async function withExportedSnapshot(
  pool: pg.Pool,
  take: (snapshot: string) => Promise<void>,
): Promise<void> {
  const locker = await pool.connect();
  let failed = true;
  try {
    await locker.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await locker.query(`SET LOCAL lock_timeout = ${lockTimeoutMs}`);
    // LOCK takes no snapshot: the next statement does, once all writers are through.
    await locker.query('LOCK TABLE segments IN SHARE MODE');
    const { rows } = await locker.query<{ snapshot: string }>(
      'SELECT pg_export_snapshot() AS snapshot',
    );
    await take(rows[0]?.snapshot ?? '');
    await locker.query('COMMIT');
    failed = false;
  } finally {
    locker.release(failed);
  }
}
