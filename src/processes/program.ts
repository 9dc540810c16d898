import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { ErrorCode } from '../errors.ts';
import type { Logger } from '../log.ts';
import { lastComplaint, openLogFile } from './log-file.ts';
import { setNiceness, setRealTime } from './priority.ts';

/** A program to keep running. It inherits the environment of this process. */
export interface ProgramSpec {
  /** As it appears in messages, e.g. `redis` or `api 1`. */
  name: string;
  command: string;
  args: readonly string[];
  cwd?: string;
  uid?: number;
  gid?: number;
  /** Takes stdout and stderr of the program; without it both go to stderr of this process. */
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
  /** The code of the error if the first start fails. */
  failureCode: ErrorCode;
  /** See `setNiceness`: how much more than this process it yields to others. */
  niceness?: number;
  /**
   * It goes before all others, if the system allows it (see `setRealTime`). Only for a program that works
   * no more than others ask of it: they wait while it runs.
   */
  isRealTime?: boolean;
  /** Runs before each start, for instance to clear what a killed predecessor left. */
  prepare?: () => Promise<void>;
  /** Gets the process id right after each start. */
  onSpawn?: (pid: number) => void;
}

/** A program that was started, from then until after its end. */
export interface Program {
  child: ChildProcess;
  exited: Promise<Exit>;
  /** Length of the log file before this start: everything after it is from this start. */
  logOffset: number;
}

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Set if the program could not even be executed. */
  error?: Error;
}

/**
 * Starts a program. It gets a process group of its own, so that a Ctrl-C in the terminal reaches only this
 * process, which then stops everything in order.
 */
export function launch(spec: ProgramSpec, log: Logger): Program {
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
    const exited = exitOf(child);
    if (child.pid !== undefined) {
      if (spec.niceness !== undefined) setNiceness(child.pid, spec.niceness);
      if (spec.isRealTime === true) setRealTime(child.pid, spec.name, log);
      spec.onSpawn?.(child.pid);
    }
    return { child, exited, logOffset: logFile?.offset ?? 0 };
  } finally {
    if (logFile !== undefined) closeSync(logFile.fd);
  }
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    // The event also comes if a signal could not be sent. Without a pid, nothing was started.
    child.on('error', (error) => {
      if (child.pid === undefined) resolve({ code: null, signal: null, error });
    });
  });
}

/** Ends a program and waits until it is gone. True if it had to be killed. */
export async function endProgram(
  { child, exited }: Program,
  signal: NodeJS.Signals,
  msMax: number,
): Promise<boolean> {
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

export function describeExit(exit: Exit): string {
  if (exit.error !== undefined) return `could not be executed (${exit.error.message})`;
  if (exit.signal !== null) return `was killed by ${exit.signal}`;
  return `exited with code ${exit.code}`;
}

/** How a program ended. If it gave up by itself, also what it said, such as that its disk is full. */
export function describeEnd(spec: ProgramSpec, program: Program, exit: Exit): string {
  const gaveUp = exit.code !== null && exit.code !== 0;
  return `${describeExit(exit)}${gaveUp ? complaintOf(spec, program) : ''}`;
}

/** `: ` and what the program said, or nothing. */
export function complaintOf({ logFile }: ProgramSpec, { logOffset }: Program): string {
  const complaint = logFile === undefined ? undefined : lastComplaint(logFile, logOffset);
  return complaint === undefined ? '' : `: ${complaint}`;
}
