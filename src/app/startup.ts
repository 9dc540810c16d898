import type { Config } from '../config.ts';
import { Lifecycle, untilSignalled } from '../lifecycle.ts';
import type { Logger } from '../log.ts';
import { reportFailure } from './start-failure.ts';

/** What the steps of a start share. */
export interface Startup {
  /** Takes what a step has opened; a stop gives it back in reverse order. */
  lifecycle: Lifecycle;
  /** Aborts when the first signal comes. */
  stopping: AbortSignal;
  /** What is left of the stop deadline. It begins at the first signal, or at the first call of this. */
  remainingMs(): number;
}

/**
 * Runs the steps of `start`, waits for a signal, and closes what they opened, in reverse order and within
 * the stop deadline. A signal during the start aborts it.
 * @returns the exit code. A failure at the start is one line on stderr; nothing is left running.
 */
export async function runUntilSignal(
  config: Config,
  log: Logger,
  start: (startup: Startup) => Promise<void>,
): Promise<number> {
  const lifecycle = new Lifecycle();
  const stopping = new AbortController();
  const remainingMs = stopDeadline(config.stopSecondsMax * 1_000);
  const signalled = untilSignalled().then((signal) => {
    remainingMs();
    stopping.abort();
    return signal;
  });
  let exitCode = 0;
  try {
    await start({ lifecycle, stopping: stopping.signal, remainingMs });
    log.info({ signal: await signalled }, 'core is stopping');
  } catch (thrown) {
    if (!stopping.signal.aborted) {
      reportFailure(thrown, log);
      exitCode = 1;
    }
  }
  try {
    await lifecycle.close();
  } catch (err) {
    log.error({ err }, 'not everything stopped cleanly');
    exitCode = 1;
  }
  return exitCode;
}

/** The time that is left, counted from the first call. */
function stopDeadline(msMax: number): () => number {
  let stopAtMs: number | undefined;
  return () => {
    stopAtMs ??= performance.now() + msMax;
    return Math.max(0, stopAtMs - performance.now());
  };
}

/** Waits for `work` until the signal aborts: a store that hangs must not hold up a stop. */
export async function unlessAborted(signal: AbortSignal, work: Promise<void>): Promise<void> {
  // After an abort nobody waits for it any more, and it fails once its store is gone.
  work.catch(() => undefined);
  let abort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    signal.throwIfAborted();
    await Promise.race([work, aborted]);
  } finally {
    if (abort !== undefined) signal.removeEventListener('abort', abort);
  }
}
