import { setTimeout as delay } from 'node:timers/promises';
import type { FailpointName } from '../../../src/failpoints.ts';
import type { FaultStores } from './oracle.ts';
import type { Servers } from './servers.ts';

/** Where the worker is stopped, in turn: with a segment sealed, an INSERT to send, a COMMIT to send. */
const stopAt: readonly FailpointName[] = ['insert:send', 'settle:before-commit', 'seal:after'];
/** Posts before the stop, between the take-over and SIGCONT, and after it. */
const steadyMs = 2_000;
/** For the failpoint to be passed. */
const passMsMax = 20_000;
/** Twice the silence that ends a session (session.ts). */
const takenOverMsMax = 60_000;
const pollMs = 100;

/**
 * Stops a worker (SIGSTOP) that holds a stream, and lets it go on once a second worker has settled
 * what the first one had sealed, which it can only after Postgres has ended the silent session. What
 * the first one was about to do, it does then. Says how long each took.
 * @throws where the stream is not taken over, or the worker does not work again after SIGCONT.
 */
export async function stopPastSilence(
  { failpoints, processes }: Servers,
  { pool }: FaultStores,
  round: number,
): Promise<string> {
  const name = stopAt[(round - 1) % stopAt.length] ?? 'insert:send';
  const pid = processes.get('worker')?.pid();
  if (pid === undefined) throw new Error('no worker to stop');
  /** Only the first worker asks at failpoints, so a pass is its own. */
  const passed = (wanted: FailpointName, atPass?: () => void): Promise<void> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${wanted} was not passed`)), passMsMax);
      failpoints.onPass(async (_role, passing) => {
        if (passing !== wanted) return;
        failpoints.onPass(async () => undefined);
        clearTimeout(timer);
        atPass?.();
        resolve();
      });
    });

  await delay(steadyMs);
  try {
    await passed(name, () => process.kill(pid, 'SIGSTOP'));
    const stoppedAtMs = performance.now();
    const sealed = await pool.query<{ id: number }>(
      `SELECT id FROM segments WHERE state = 'sealed'`,
    );
    const ids = sealed.rows.map((row) => row.id);
    if (ids.length === 0) throw new Error('the stopped worker had sealed nothing');
    while (!(await areSettled(pool, ids))) {
      if (performance.now() - stoppedAtMs > takenOverMsMax) {
        throw new Error(`after ${takenOverMsMax / 1_000} s nobody has taken the stream over`);
      }
      await delay(pollMs);
    }
    const takenOverMs = performance.now() - stoppedAtMs;
    await delay(steadyMs);
    const works = passed('settle:after');
    process.kill(pid, 'SIGCONT');
    const continuedAtMs = performance.now();
    await works;
    const worksMs = performance.now() - continuedAtMs;
    await delay(steadyMs);
    return (
      `worker stopped at ${name}, its stream taken over after ${seconds(takenOverMs)}, ` +
      `settling again ${seconds(worksMs)} after SIGCONT`
    );
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

async function areSettled(pool: FaultStores['pool'], ids: readonly number[]): Promise<boolean> {
  const { rows } = await pool.query<{ open: boolean }>(
    `SELECT EXISTS (SELECT FROM segments WHERE id = ANY ($1::bigint[]) AND state = 'sealed') AS open`,
    [ids],
  );
  return rows[0]?.open === false;
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;
