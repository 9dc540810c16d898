import type pg from 'pg';

/**
 * How long a run may say nothing to Postgres before Postgres ends its session, and with it its hold
 * on the stream. A worker that stands still (SIGSTOP, a frozen machine) keeps its connection alive
 * for as long as its kernel does, and would hold its streams for as long.
 */
export const silentMsMax = 30_000;

/** Bounds the silence of a session that holds a stream, in and out of a transaction. */
export async function boundSilence(client: pg.PoolClient, msMax: number): Promise<void> {
  await client.query(
    `SELECT set_config('idle_session_timeout', $1, false),
       set_config('idle_in_transaction_session_timeout', $1, false)`,
    [String(msMax)],
  );
}

/**
 * Runs work that does not use the session, and speaks to Postgres meanwhile, so that an insert that
 * takes long does not count as silence. The session is asked once before the work: one that has been
 * ended, so that another worker may have the stream, does not begin it.
 */
export async function keepingSession<T>(
  session: { client: pg.PoolClient; silentMsMax?: number | undefined },
  work: () => Promise<T>,
): Promise<T> {
  const { client, silentMsMax: msMax = silentMsMax } = session;
  await client.query('SELECT 1');
  let beat: Promise<unknown> | undefined;
  const timer = setInterval(() => {
    // One at a time. A session that has ended shows with the next query that matters.
    beat ??= client
      .query('SELECT 1')
      .catch(() => undefined)
      .finally(() => {
        beat = undefined;
      });
  }, msMax / 3);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await beat;
  }
}
