import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { readIfThere } from '../durable-file.ts';
import { processesIn, readProcessStat } from '../linux-processes.ts';
import type { Logger } from '../log.ts';

/** Tells an embedded server's processes from all others: see `endLeftovers`. */
export interface ServerMark {
  name: 'postgres' | 'redis' | 'clickhouse';
  /** The server's working directory, which is its data directory. */
  dir: string;
  pidFile: string;
  /**
   * What a process is to this server, by the arguments of its command line: its main process, a part that
   * lives and dies with the main process (Postgres has one per connection), or a stranger.
   */
  relationOf: (argv: readonly string[]) => Relation;
  stopSignal: NodeJS.Signals;
}

type Relation = 'main' | 'part' | 'stranger';

interface Leftover {
  pid: number;
  relation: Relation;
}

const leftoverMsMax = 10_000;
const pollMs = 20;

/** Name of the program that a command line runs. Servers that set their title keep it in front. */
export function programName(argv: readonly string[]): string {
  return path.basename(argv[0]?.split(' ')[0] ?? '').replace(/:$/, '');
}

/** Writes the process id down, for systems without /proc. */
export function writePidFile(mark: ServerMark, pid: number): void {
  writeFileSync(mark.pidFile, `${pid}\n`);
}

/**
 * Stops the processes that a killed Core left running on this data directory, and waits until they are
 * gone. It touches only processes of this server with this working directory. Without /proc it touches only
 * the process of the pid file, and only if the command line is this server's.
 */
export async function endLeftovers(mark: ServerMark, log: Logger): Promise<void> {
  let left = findProcesses(mark);
  if (left.length === 0) return;
  log.warn(
    { process: mark.name, pids: left.map((one) => one.pid) },
    `${mark.name} of a former Core still runs; stopping it first`,
  );
  // The stop signal means something else to a part. A part ends once its main process has.
  signalAll(
    left.filter((one) => one.relation === 'main'),
    mark.stopSignal,
  );
  const giveUpAtMs = performance.now() + leftoverMsMax;
  while (left.length > 0 && performance.now() < giveUpAtMs) {
    await delay(pollMs);
    left = findProcesses(mark);
  }
  if (left.length === 0) return;
  log.warn({ process: mark.name }, `${mark.name} of a former Core does not stop; killing it`);
  signalAll(left, 'SIGKILL');
  for (let wait = 0; left.length > 0 && wait < leftoverMsMax / pollMs; wait += 1) {
    await delay(pollMs);
    left = findProcesses(mark);
  }
}

function signalAll(processes: readonly Leftover[], signal: NodeJS.Signals): void {
  for (const { pid } of processes) {
    try {
      process.kill(pid, signal);
    } catch (thrown) {
      // The process ended by itself in the meantime.
      if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown;
    }
  }
}

function findProcesses(mark: ServerMark): Leftover[] {
  return existsSync('/proc/self/cwd') ? findInProc(mark) : findByPidFile(mark);
}

function findInProc(mark: ServerMark): Leftover[] {
  const found = processesIn(mark.dir)
    .filter(({ pid }) => readProcessStat(pid)?.state !== 'dead')
    .map(({ pid, argv }): Leftover => ({ pid, relation: mark.relationOf(argv) }));
  // A server that the kernel takes down has no working directory any more, but may still hold its port.
  const main = pidInFile(mark);
  if (main !== undefined && readProcessStat(main)?.state === 'ending') {
    found.push({ pid: main, relation: 'part' });
  }
  return found.filter((one) => one.relation !== 'stranger');
}

/** Undefined if no server was ever started, or if the file does not hold a process id. */
function pidInFile(mark: ServerMark): number | undefined {
  const pid = Number(readIfThere(mark.pidFile)?.trim());
  return Number.isSafeInteger(pid) && pid > 0 && pid !== process.pid ? pid : undefined;
}

function findByPidFile(mark: ServerMark): Leftover[] {
  const pid = pidInFile(mark);
  if (pid === undefined) return [];
  try {
    const command = execFileSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' });
    const relation = mark.relationOf(command.trim().split(/\s+/));
    return relation === 'stranger' ? [] : [{ pid, relation }];
  } catch {
    // `ps` knows no such process.
    return [];
  }
}
