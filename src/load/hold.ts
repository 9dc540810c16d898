import type pg from 'pg';

/**
 * A run's hold on its stream: a Postgres connection that has the stream's advisory lock. If the
 * connection dies, Postgres frees the lock, and the run can no longer seal or insert.
 */
export interface Hold {
  client: pg.PoolClient;
  /** Absent: `silentMsMaxDefault`. */
  silentMsMax?: number | undefined;
}

/**
 * How long a run may send nothing to Postgres before Postgres ends its connection, and with it the
 * hold. A worker that stands still (SIGSTOP, a frozen machine) keeps its connections for as long as its
 * kernel runs; without this bound it would hold its streams for that long.
 */
const silentMsMaxDefault = 30_000;

/** Runs `work` with a hold on the stream; `locked` if another run holds it. */
export async function holdStream<T>(
  deps: { pool: pg.Pool; silentMsMax?: number | undefined },
  stream: string,
  work: (hold: Hold) => Promise<T>,
): Promise<T | { outcome: 'locked' }> {
  const { silentMsMax } = deps;
  const client = await deps.pool.connect();
  // Closing a connection surely frees its lock, so this closes one that failed or may have the lock.
  let closes = true;
  try {
    const lock = await client.query<{ locked: boolean }>(
      'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS locked',
      [stream],
    );
    if (lock.rows[0]?.locked !== true) {
      closes = false;
      return { outcome: 'locked' };
    }
    await boundSilence(client, silentMsMax);
    const result = await work({ client, silentMsMax });
    await boundSilence(client, 0);
    await client.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [stream]);
    closes = false;
    return result;
  } finally {
    client.release(closes);
  }
}

/** Makes Postgres end a connection that is silent for this long, in a transaction or not. 0: never. */
export async function boundSilence(
  client: pg.PoolClient,
  msMax: number = silentMsMaxDefault,
): Promise<void> {
  await client.query(
    `SELECT set_config('idle_session_timeout', $1, false),
       set_config('idle_in_transaction_session_timeout', $1, false)`,
    [String(msMax)],
  );
}

/**
 * Runs work that does not use the hold's connection, and queries Postgres meanwhile, so that a long
 * insert does not count as silence. The first query comes before the work. If another run may have
 * the stream by now, the query fails and the work does not begin.
 */
export async function keepHold<T>(hold: Hold, work: () => Promise<T>): Promise<T> {
  const { client, silentMsMax = silentMsMaxDefault } = hold;
  await client.query('SELECT 1');
  let beat: Promise<unknown> | undefined;
  const timer = setInterval(() => {
    // One query at a time. If the connection has died, the run's next query on it fails and says so.
    beat ??= client
      .query('SELECT 1')
      .catch(() => undefined)
      .finally(() => {
        beat = undefined;
      });
  }, silentMsMax / 3);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await beat;
  }
}
