import { setTimeout as delay } from 'node:timers/promises';
import type { Supervised } from '../../../src/processes/supervisor.ts';

/** The processes that the suite kills. */
export const victims = ['api', 'worker', 'redis', 'clickhouse', 'postgres'] as const;
export type Victim = (typeof victims)[number];

/** A process in the harness' hands: killed at will, and started again every time. */
export interface Killable {
  readonly name: Victim;
  /** Of the process that runs or is just starting; undefined between two starts. */
  pid(): number | undefined;
  /**
   * SIGKILL now, and a new start `downMs` later. A process that is still starting is killed too;
   * false where there is none to kill.
   */
  kill(downMs: number): boolean;
  /** Whether this process id was killed by `kill`. */
  wasKilled(pid: number): boolean;
  /** Resolves once nothing is being started again. */
  up(): Promise<void>;
  stop(): Promise<void>;
}

/** A store that is away fails the start of what needs it, which is then tried again. */
const restartMsMax = 90_000;
const restartPauseMs = 50;

/**
 * Starts a process under Core's supervisor, which starts it again where it dies by itself. After a
 * kill by the harness the process is instead given up and started anew, so that the schedule, not
 * the supervisor's back-off, says how long it is away.
 *
 * `startingPid` tells the process id before the start has succeeded. A kill at the very moment at
 * which a start succeeds is the supervisor's to mend, which warns of a death: see `wasKilled`.
 */
export async function startKillable(
  name: Victim,
  start: (signal: AbortSignal) => Promise<Supervised>,
  startingPid: () => number | undefined,
): Promise<Killable> {
  const stopping = new AbortController();
  let current: Supervised | undefined = await start(stopping.signal);
  let restarting: Promise<void> | undefined;
  const killed = new Set<number>();

  const pid = (): number | undefined => {
    const found = current === undefined ? startingPid() : current.pid();
    return found === undefined || killed.has(found) ? undefined : found;
  };
  const restart = async (downMs: number): Promise<void> => {
    const dead = current;
    current = undefined;
    await dead?.stop(0);
    await delay(downMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    const giveUpAtMs = performance.now() + restartMsMax;
    while (!stopping.signal.aborted) {
      try {
        current = await start(stopping.signal);
        return;
      } catch (thrown) {
        if (!stopping.signal.aborted && performance.now() > giveUpAtMs) throw thrown;
        await delay(restartPauseMs);
      }
    }
  };
  return {
    name,
    pid,
    kill(downMs) {
      const target = pid();
      if (target === undefined) return false;
      try {
        process.kill(target, 'SIGKILL');
      } catch (thrown) {
        // It ended by itself a moment ago.
        if ((thrown as NodeJS.ErrnoException).code === 'ESRCH') return false;
        throw thrown;
      }
      // The supervisor hears of the death at a later turn of the event loop.
      killed.add(target);
      if (restarting === undefined) {
        restarting = restart(downMs).finally(() => {
          restarting = undefined;
        });
        // Whoever waits for `up` is told; before that nobody listens.
        restarting.catch(() => undefined);
      }
      return true;
    },
    wasKilled: (dead) => killed.has(dead),
    async up() {
      await restarting;
    },
    async stop() {
      stopping.abort();
      await restarting?.catch(() => undefined);
      await current?.stop();
    },
  };
}
