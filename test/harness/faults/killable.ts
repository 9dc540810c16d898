import { setTimeout as delay } from 'node:timers/promises';
import type { Supervised } from '../../../src/processes/supervisor.ts';

/** The processes that the suite kills. */
export const victims = ['api', 'worker', 'redis', 'clickhouse', 'postgres'] as const;
export type Victim = (typeof victims)[number];

/** A process that the harness kills at will, and starts again after each kill. */
export interface Killable {
  readonly name: Victim;
  /** Process id of the process that runs or is starting; undefined between two starts. */
  pid(): number | undefined;
  /**
   * Sends SIGKILL now, and starts the process again `downMs` later. It also kills a process that is
   * still starting. False if there is none to kill.
   */
  kill(downMs: number): boolean;
  /** Whether `kill` killed the process with this id. */
  wasKilled(pid: number): boolean;
  /** Resolves once no start is under way. */
  up(): Promise<void>;
  stop(): Promise<void>;
}

/** A start fails while a store that it needs is away. It is repeated for this long. */
const restartMsMax = 90_000;
const restartPauseMs = 50;

/**
 * Starts a process under Core's supervisor, which restarts it if it dies by itself. If the harness kills
 * it, the harness ends the supervision and starts it anew. So the schedule decides how long it is away, and
 * not the supervisor's back-off.
 *
 * `startingPid` is its process id before the start has succeeded. If a kill comes just when a start
 * succeeds, the supervisor restarts it and warns of a death: see `wasKilled`.
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
        // The process ended by itself a moment ago.
        if ((thrown as NodeJS.ErrnoException).code === 'ESRCH') return false;
        throw thrown;
      }
      // The supervisor learns of the death in a later turn of the event loop.
      killed.add(target);
      if (restarting === undefined) {
        restarting = restart(downMs).finally(() => {
          restarting = undefined;
        });
        // `up` reports a failure. Before anybody calls it, the rejection must not end the harness.
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
