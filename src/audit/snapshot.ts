import type pg from 'pg';

/** How long the lock waits for seals and settles that are under way; new ones wait behind it. */
const lockTimeoutMs = 3_000;

/**
 * Runs `work` in a read-only transaction that sees Postgres at one moment when nobody seals or
 * settles. So it sees every segment up to the largest id that it sees: no segment with a smaller id
 * can be committed later.
 *
 * A second connection makes that moment: it locks `segments` for some milliseconds, while writers
 * wait, and exports its snapshot.
 *
 * Source:
 * https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
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
      // SET takes no parameters. The name is from Postgres and consists of hexadecimal digits and dashes.
      await reader.query(`SET TRANSACTION SNAPSHOT '${snapshot.replaceAll(/[^0-9A-F-]/gi, '')}'`);
    });
    const result = await work(reader);
    await reader.query('COMMIT');
    failed = false;
    return result;
  } finally {
    // After a failure the transaction may still be open, so the connection is closed and not reused.
    reader.release(failed);
  }
}

/** Exports a snapshot that another connection can import while `take` runs. */
async function withExportedSnapshot(
  pool: pg.Pool,
  take: (snapshot: string) => Promise<void>,
): Promise<void> {
  const locker = await pool.connect();
  let failed = true;
  try {
    await locker.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await locker.query(`SET LOCAL lock_timeout = ${lockTimeoutMs}`);
    // LOCK takes no snapshot. The next statement takes it, after all writers have ended.
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
