import type { ChildProcess } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { CoreError, type ErrorCode, errorTable } from '../errors.ts';
import { complaintOf, describeExit, type Program, type ProgramSpec } from './program.ts';

/**
 * Resolves when the program is ready.
 * @throws CoreError if it ends, says that it failed, takes too long, or if `stopping` aborts.
 */
export async function untilReady(
  spec: ProgramSpec,
  program: Program,
  stopping: AbortSignal,
): Promise<void> {
  const waiting = new AbortController();
  const outcomes = [
    spec.ready === 'ipc' ? readyMessage(spec, program.child) : spec.ready(waiting.signal),
    failOnExit(spec, program),
    failWhenLate(spec, waiting.signal),
    failOnStop(spec, stopping, waiting.signal),
  ];
  // Those that lose the race may reject later, and nobody waits for them then.
  for (const outcome of outcomes) outcome.catch(() => undefined);
  try {
    await Promise.race(outcomes);
  } finally {
    waiting.abort();
  }
}

async function failOnExit(spec: ProgramSpec, program: Program): Promise<never> {
  const exit = await program.exited;
  throw failure(spec, `${describeExit(exit)} before it was ready${complaintOf(spec, program)}`);
}

async function failWhenLate(spec: ProgramSpec, waiting: AbortSignal): Promise<never> {
  await delay(spec.readyMsMax, undefined, { signal: waiting });
  throw failure(spec, `was not ready after ${spec.readyMsMax / 1_000} s`);
}

function failOnStop(
  spec: ProgramSpec,
  stopping: AbortSignal,
  waiting: AbortSignal,
): Promise<never> {
  return new Promise((_, reject) => {
    const onStop = (): void => reject(failure(spec, 'was told to stop'));
    // A signal that has aborted already emits no event.
    if (stopping.aborted) onStop();
    else stopping.addEventListener('abort', onStop, { once: true, signal: waiting });
  });
}

/** Waits for the program's own message over IPC, and ignores all other messages. */
function readyMessage(spec: ProgramSpec, child: ChildProcess): Promise<void> {
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

function failure(spec: ProgramSpec, why: string): CoreError {
  return new CoreError(spec.failureCode, `${spec.name} ${why}`);
}
