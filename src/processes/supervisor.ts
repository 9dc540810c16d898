import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { CoreError, type ErrorCode, errorTable, messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { lastComplaint, openLogFile } from './log-file.ts';
import { setNiceness, setRealTime } from './priority.ts';

/** A program to keep running. It inherits the environment of this process. */
export interface ProcessSpec {
  /** As it appears in messages, e.g. `redis` or `api 1`. */
  name: string;
  command: string;
  args: readonly string[];
  cwd?: string;
  uid?: number;
  gid?: number;
  /** Where stdout and stderr go; without it both go to stderr of this process. */
  logFile?: string;
  /**
   * `ipc`: the program sends `{ ready: true }`, or `{ failed: { code, message } }`, over its IPC
   * channel and ends when that disconnects. Otherwise a probe that resolves once the program
   * answers; it gives up when its signal aborts.
   */
  ready: 'ipc' | ((signal: AbortSignal) => Promise<void>);
  readyMsMax: number;
  stopSignal: NodeJS.Signals;
  stopMsMax: number;
  /** The code of the error when the first start fails. */
  failureCode: ErrorCode;
  /**
   * How much more than this process it yields to others when the processor is short: POSIX's niceness,
   * 19 at most; on Linux that of its session, too. Where the system refuses, it runs as any other.
   */
  niceness?: number;
  /**
   * It goes before all others, where the system allows it (Linux, as root or with CAP_SYS_NICE). Only for
   * a program whose work is bounded by what others ask of it: they wait while it runs.
   */
  isRealTime?: boolean;
  /** Runs before each start, for instance to clear what a killed predecessor left. */
  prepare?: () => Promise<void>;
  /** Told the process id right after each start. */
  onSpawn?: (pid: number) => void;
}

/**
 * Who goes last where the processor is short, of what one machine runs; the others (api and Redis), for
 * whom a node waits, yield to nobody. A load that waits gathers a larger segment, Postgres updates
 * hundreds of thousands of counters at once, and ClickHouse's merges take whatever they are given. On
 * Linux Postgres' own processes begin sessions and may so take as much as api (priority.ts).
 */
export const niceness = { worker: 5, postgres: 5, clickhouse: 10 } as const;

export interface Supervised {
  readonly name: string;
  /** Of the process that runs now; undefined between two starts. */
  pid(): number | undefined;
  /**
   * Ends the program and its supervision: the stop signal, then SIGKILL once the deadline (that of
   * the spec, unless a shorter one is given) has passed. Never throws; repeated calls share one run.
   */
  stop(msMax?: number): Promise<void>;
}

interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Set where the program could not even be executed. */
  error?: Error;
}

interface Running {
  child: ChildProcess;
  exited: Promise<Exit>;
  /** How long the log file was at this start: what lies behind is of this run. */
  logOffset: number;
}

const backoffMsMin = 250;
const backoffMsMax = 10_000;
/** A program that stayed up this long has recovered: its next failure starts the back-off anew. */
const settledMs = 30_000;

/**
 * Starts a program, resolves once it is ready, and starts it again with exponential back-off
 * whenever it dies, until `stop`. Each death and each return is one log line. The program gets a
 * process group of its own, so that a Ctrl-C in the terminal reaches only this process, which then
 * stops everything in order.
 * @throws CoreError with the spec's failureCode where the first start fails; nothing runs then.
 */
export async function supervise(
  spec: ProcessSpec,
  log: Logger,
  signal?: AbortSignal,
): Promise<Supervised> {
  const stopping = new AbortController();
  const abort = (): void => stopping.abort();
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted === true) stopping.abort();

  let current: Running | undefined;
  const start = async (): Promise<Running> => {
    await spec.prepare?.();
    stopping.signal.throwIfAborted();
    const running = launch(spec, log);
    current = running;
    try {
      await untilReady(spec, running, stopping.signal);
      log.debug({ process: spec.name, childPid: running.child.pid }, `${spec.name} is ready`);
      return running;
    } catch (thrown) {
      await end(running, spec.stopSignal, spec.stopMsMax);
      current = undefined;
      throw thrown;
    }
  };

  let first: Running;
  try {
    first = await start();
  } finally {
    // From here on the caller holds a Supervised and stops it in its own order.
    signal?.removeEventListener('abort', abort);
  }
  const watched = watch(first);

  async function watch(initial: Running): Promise<void> {
    let running = initial;
    let failures = 0;
    for (;;) {
      const upSinceMs = performance.now();
      let reason = describeEnd(spec, running, await running.exited);
      current = undefined;
      if (performance.now() - upSinceMs > settledMs) failures = 0;
      for (let back = false; !back; ) {
        if (stopping.signal.aborted) return;
        const delayMs = Math.min(backoffMsMin * 2 ** failures, backoffMsMax);
        failures += 1;
        log.warn(
          { process: spec.name, childPid: running.child.pid, delayMs },
          `${spec.name} ${reason}; starting it again in ${delayMs} ms`,
        );
        await delay(delayMs, undefined, { signal: stopping.signal }).catch(() => undefined);
        if (stopping.signal.aborted) return;
        try {
          running = await start();
          back = true;
        } catch (thrown) {
          if (stopping.signal.aborted) return;
          reason = `did not start: ${messageOf(thrown)}`;
        }
      }
      log.info({ process: spec.name, childPid: running.child.pid }, `${spec.name} is back`);
    }
  }

  let stopped: Promise<void> | undefined;
  const stop = async (msMax: number): Promise<void> => {
    stopping.abort();
    if (current !== undefined) {
      const killed = await end(current, spec.stopSignal, msMax);
      if (killed) {
        log.warn({ process: spec.name }, `${spec.name} did not stop in ${msMax} ms and was killed`);
      }
    }
    await watched;
  };
  return {
    name: spec.name,
    pid: () => current?.child.pid,
    stop: (msMax) => {
      stopped ??= stop(Math.max(0, Math.min(msMax ?? spec.stopMsMax, spec.stopMsMax)));
      return stopped;
    },
  };
}

/**
 * Starts several programs side by side. When one fails the others are stopped, and the first
 * failure is thrown: either all of them run afterwards or none.
 */
export async function startTogether(
  starts: readonly ((signal: AbortSignal) => Promise<Supervised>)[],
  signal: AbortSignal,
): Promise<Supervised[]> {
  const failing = new AbortController();
  const either = AbortSignal.any([signal, failing.signal]);
  let firstFailure: unknown;
  const settled = await Promise.allSettled(
    starts.map(async (start) => {
      try {
        return await start(either);
      } catch (thrown) {
        if (!failing.signal.aborted) firstFailure = thrown;
        failing.abort();
        throw thrown;
      }
    }),
  );
  const running = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  if (running.length === starts.length) return running;
  await Promise.all(running.map((one) => one.stop()));
  throw firstFailure;
}

function launch(spec: ProcessSpec, log: Logger): Running {
  const logFile = spec.logFile === undefined ? undefined : openLogFile(spec.logFile);
  const output = logFile?.fd ?? 2;
  try {
    const child = spawn(spec.command, spec.args, {
      stdio: ['ignore', output, output, ...(spec.ready === 'ipc' ? (['ipc'] as const) : [])],
      detached: true,
      ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
      ...(spec.uid === undefined ? {} : { uid: spec.uid }),
      ...(spec.gid === undefined ? {} : { gid: spec.gid }),
    });
    const exited = new Promise<Exit>((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }));
      // Also emitted where a signal could not be sent; only without a pid did nothing start.
      child.on('error', (error) => {
        if (child.pid === undefined) resolve({ code: null, signal: null, error });
      });
    });
    if (child.pid !== undefined) {
      // Before it has threads of its own, which inherit it: a later change is of one thread only.
      if (spec.niceness !== undefined) setNiceness(child.pid, spec.niceness);
      if (spec.isRealTime === true) setRealTime(child.pid, spec.name, log);
      spec.onSpawn?.(child.pid);
    }
    return { child, exited, logOffset: logFile?.offset ?? 0 };
  } finally {
    if (logFile !== undefined) closeSync(logFile.fd);
  }
}

/** Resolves when the program is ready; throws when it ends, says it failed, or takes too long. */
async function untilReady(
  spec: ProcessSpec,
  running: Running,
  stopping: AbortSignal,
): Promise<void> {
  const waiting = new AbortController();
  const fail = (why: string): never => {
    throw new CoreError(spec.failureCode, `${spec.name} ${why}`);
  };
  const ready =
    spec.ready === 'ipc' ? readyMessage(spec, running.child) : spec.ready(waiting.signal);
  // Whichever of these loses the race must not be left as an unhandled rejection.
  ready.catch(() => undefined);
  const exited = running.exited.then((exit) => {
    fail(`${describeExit(exit)} before it was ready${complaintOf(spec, running)}`);
  });
  exited.catch(() => undefined);
  const late = delay(spec.readyMsMax, undefined, { signal: waiting.signal }).then(() =>
    fail(`was not ready after ${spec.readyMsMax / 1_000} s`),
  );
  late.catch(() => undefined);
  let onStopping: (() => void) | undefined;
  const stopped = new Promise<never>((_, reject) => {
    onStopping = () => reject(new CoreError(spec.failureCode, `${spec.name} was told to stop`));
    stopping.addEventListener('abort', onStopping, { once: true });
    // A signal that has been aborted already emits no event.
    if (stopping.aborted) onStopping();
  });
  stopped.catch(() => undefined);
  try {
    await Promise.race([ready, exited, late, stopped]);
  } finally {
    waiting.abort();
    if (onStopping !== undefined) stopping.removeEventListener('abort', onStopping);
  }
}

/** Waits for the program's own word over IPC. What is no such word is ignored. */
function readyMessage(spec: ProcessSpec, child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.on('message', (message: unknown) => {
      if (typeof message !== 'object' || message === null) return;
      if ('ready' in message && message.ready === true) resolve();
      if (!('failed' in message)) return;
      const failed = message.failed as { code?: unknown; message?: unknown };
      const code = String(failed.code);
      reject(
        new CoreError(
          Object.hasOwn(errorTable, code) ? (code as ErrorCode) : spec.failureCode,
          String(failed.message),
        ),
      );
    });
  });
}

/** Ends a process and waits until it is gone. True where it had to be killed. */
async function end(running: Running, signal: NodeJS.Signals, msMax: number): Promise<boolean> {
  const { child, exited } = running;
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return false;
  const waiting = new AbortController();
  child.kill(signal);
  const outcome = await Promise.race([
    exited.then(() => 'exited' as const),
    delay(msMax, 'late' as const, { signal: waiting.signal }),
  ]);
  waiting.abort();
  if (outcome === 'exited') return false;
  child.kill('SIGKILL');
  await exited;
  return true;
}

function describeExit(exit: Exit): string {
  if (exit.error !== undefined) return `could not be executed (${exit.error.message})`;
  if (exit.signal !== null) return `was killed by ${exit.signal}`;
  return `exited with code ${exit.code}`;
}

/** For a program that gave up by itself also what it said, such as that its disk is full. */
function describeEnd(spec: ProcessSpec, running: Running, exit: Exit): string {
  const gaveUp = exit.code !== null && exit.code !== 0;
  return `${describeExit(exit)}${gaveUp ? complaintOf(spec, running) : ''}`;
}

function complaintOf({ logFile }: ProcessSpec, { logOffset }: Running): string {
  const complaint = logFile === undefined ? undefined : lastComplaint(logFile, logOffset);
  return complaint === undefined ? '' : `: ${complaint}`;
}
