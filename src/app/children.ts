import path from 'node:path';
import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';
import { roleFlags } from '../processes/node-flags.ts';
import { niceness } from '../processes/priority.ts';
import type { ProgramSpec } from '../processes/program.ts';
import { type Supervised, startTogether, supervise } from '../processes/supervisor.ts';
import { projectRoot } from '../root.ts';

const program = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
/** Part of the stop deadline that Core's own processes get; the embedded servers get the rest. */
const childShare = 0.6;
const childReadyMsMax = 60_000;
/** What a child gets beyond the deadline that it sets itself, so that only one that hangs is killed. */
const childGraceMs = 300;

/** `config.http.processes` processes that share the ports. */
export function apiSpecs(config: Config): ProgramSpec[] {
  const count = config.http.processes;
  return Array.from({ length: count }, (_, index) =>
    childSpec(count === 1 ? 'api' : `api ${index + 1}`, 'serve', config),
  );
}

export function workerSpec(config: Config): ProgramSpec {
  return { ...childSpec('worker', 'work', config), niceness: niceness.worker };
}

function childSpec(name: string, role: 'serve' | 'work', config: Config): ProgramSpec {
  return {
    name,
    // A child inherits the settings. The program `env` replaces these two, and then Core takes its place.
    command: 'env',
    args: [
      'CORE_API_PROCESSES=1',
      `CORE_STOP_SECONDS_MAX=${childStopSeconds(config)}`,
      process.execPath,
      ...roleFlags[role],
      program,
      role,
    ],
    ready: 'ipc',
    readyMsMax: childReadyMsMax,
    stopSignal: 'SIGTERM',
    stopMsMax: config.stopSecondsMax * 1_000,
    failureCode: 'PROCESS_FAILED',
  };
}

function childStopSeconds(config: Config): number {
  return Math.max(1, Math.floor(config.stopSecondsMax * childShare));
}

/** How long children may take to stop if embedded servers have to stop after them. */
export function childStopMs(config: Config, remainingMs: number): number {
  return Math.min(remainingMs, childStopSeconds(config) * 1_000 + childGraceMs);
}

export function startAll(
  specs: readonly ProgramSpec[],
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised[]> {
  return startTogether(
    specs.map((spec) => (either) => supervise(spec, log, either)),
    signal,
  );
}

export async function stopAll(running: readonly Supervised[], msMax: number): Promise<void> {
  await Promise.all(running.map((one) => one.stop(msMax)));
}
