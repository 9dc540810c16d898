import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { describeEnd, endProgram, launch, type Program, type ProgramSpec } from './program.ts';
import { untilReady } from './until-ready.ts';

export interface Supervised {
  readonly name: string;
  /** The process id of the program; undefined between two starts. */
  pid(): number | undefined;
  /**
   * Ends the program and its supervision: the stop signal, then SIGKILL once the deadline (that of
   * the spec, unless a shorter one is given) has passed. Never throws; repeated calls share one run.
   */
  stop(msMax?: number): Promise<void>;
}

interface Supervision {
  readonly spec: ProgramSpec;
  readonly log: Logger;
  readonly stopping: AbortController;
  /** Undefined between two starts. */
  current: Program | undefined;
}

const backoffMsMin = 250;
const backoffMsMax = 10_000;
/** A program that stayed up this long has recovered: its next failure starts the back-off anew. */
const recoveredMs = 30_000;

/**
 * Starts a program, resolves once it is ready, and starts it again with exponential back-off
 * whenever it dies, until `stop`. Each death and each return is one log line.
 * @throws CoreError with the spec's failureCode if the first start fails; nothing runs then.
 */
export async function supervise(
  spec: ProgramSpec,
  log: Logger,
  signal?: AbortSignal,
): Promise<Supervised> {
  const supervision: Supervision = {
    spec,
    log,
    stopping: new AbortController(),
    current: undefined,
  };
  const watched = watch(supervision, await startFirst(supervision, signal));
  let stopped: Promise<void> | undefined;
  return {
    name: spec.name,
    pid: () => supervision.current?.child.pid,
    stop: (msMax = spec.stopMsMax) => {
      stopped ??= stop(supervision, Math.max(0, Math.min(msMax, spec.stopMsMax)), watched);
      return stopped;
    },
  };
}

/** The caller's signal aborts the first start. After it the caller stops the program in its own order. */
async function startFirst(
  supervision: Supervision,
  signal: AbortSignal | undefined,
): Promise<Program> {
  const abort = (): void => supervision.stopping.abort();
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted === true) abort();
  try {
    return await start(supervision);
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

async function start(supervision: Supervision): Promise<Program> {
  const { spec, log, stopping } = supervision;
  await spec.prepare?.();
  stopping.signal.throwIfAborted();
  const program = launch(spec, log);
  supervision.current = program;
  try {
    await untilReady(spec, program, stopping.signal);
    log.debug({ process: spec.name, childPid: program.child.pid }, `${spec.name} is ready`);
    return program;
  } catch (thrown) {
    await endProgram(program, spec.stopSignal, spec.stopMsMax);
    supervision.current = undefined;
    throw thrown;
  }
}

/** Starts the program again whenever it ends, until the supervision is told to stop. */
async function watch(supervision: Supervision, first: Program): Promise<void> {
  const { spec, log } = supervision;
  let program = first;
  let failures = 0;
  for (;;) {
    const upSinceMs = performance.now();
    const reason = describeEnd(spec, program, await program.exited);
    supervision.current = undefined;
    if (performance.now() - upSinceMs > recoveredMs) failures = 0;
    const again = await startAgain(supervision, program, reason, failures);
    if (again === undefined) return;
    ({ program, failures } = again);
    log.info({ process: spec.name, childPid: program.child.pid }, `${spec.name} is back`);
  }
}

/** Tries until a start succeeds; undefined if the supervision is told to stop. */
async function startAgain(
  supervision: Supervision,
  ended: Program,
  endReason: string,
  failuresBefore: number,
): Promise<{ program: Program; failures: number } | undefined> {
  const { spec, log, stopping } = supervision;
  let reason = endReason;
  let failures = failuresBefore;
  while (!stopping.signal.aborted) {
    const delayMs = Math.min(backoffMsMin * 2 ** failures, backoffMsMax);
    failures += 1;
    log.warn(
      { process: spec.name, childPid: ended.child.pid, delayMs },
      `${spec.name} ${reason}; starting it again in ${delayMs} ms`,
    );
    await delay(delayMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    if (stopping.signal.aborted) return undefined;
    try {
      return { program: await start(supervision), failures };
    } catch (thrown) {
      reason = `did not start: ${messageOf(thrown)}`;
    }
  }
  return undefined;
}

async function stop(
  { spec, log, stopping, current }: Supervision,
  msMax: number,
  watched: Promise<void>,
): Promise<void> {
  stopping.abort();
  if (current !== undefined && (await endProgram(current, spec.stopSignal, msMax))) {
    log.warn({ process: spec.name }, `${spec.name} did not stop in ${msMax} ms and was killed`);
  }
  await watched;
}

/**
 * Starts several programs side by side. If one fails, the others are stopped and the first failure is
 * thrown: afterwards either all of them run or none.
 */
export async function startTogether(
  starts: readonly ((signal: AbortSignal) => Promise<Supervised>)[],
  signal: AbortSignal,
): Promise<Supervised[]> {
  const failing = new AbortController();
  const either = AbortSignal.any([signal, failing.signal]);
  let firstFailure: unknown;
  const outcomes = await Promise.allSettled(
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
  const running = outcomes.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  if (running.length === starts.length) return running;
  await Promise.all(running.map((one) => one.stop()));
  throw firstFailure;
}
