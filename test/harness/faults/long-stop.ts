import { setTimeout as delay } from 'node:timers/promises';
import type { FailpointName } from '../../../src/failpoints.ts';
import type { FaultStores } from './oracle.ts';
import type { Servers } from './servers.ts';

/**
 * The harness stops the worker at these failpoints by turns: before an INSERT, before a COMMIT, after a
 * seal.
 */
const stopAt: readonly FailpointName[] = ['insert:send', 'settle:before-commit', 'seal:after'];
/** Nodes post for this long before the stop, between the take-over and SIGCONT, and after that. */
const steadyMs = 2_000;
/** The worker must pass the failpoint within this time. */
const passMsMax = 20_000;
/** Twice the silence that ends a run's hold on its stream (src/load/hold.ts). */
const takenOverMsMax = 60_000;
const pollMs = 100;

/**
 * Stops a worker (SIGSTOP) that holds a stream, and lets it go on (SIGCONT) once a second worker has
 * settled what the first one sealed. The second one can do that only after Postgres has ended the silent
 * session. The first worker then does what it was about to do. Returns how long each step took.
 * @throws Error if nobody takes the stream over, or if the first worker settles nothing after SIGCONT.
 */
export async function stopPastSilence(
  { failpoints, processes }: Servers,
  { pool }: FaultStores,
  round: number,
): Promise<string> {
  const name = stopAt[(round - 1) % stopAt.length] ?? 'insert:send';
  const pid = processes.get('worker')?.pid();
  if (pid === undefined) throw new Error('no worker to stop');
  /** Only the first worker asks at failpoints, so every pass is its pass. */
  const passed = (wanted: FailpointName, atPass?: () => void): Promise<void> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`the worker did not pass ${wanted}`)),
        passMsMax,
      );
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
