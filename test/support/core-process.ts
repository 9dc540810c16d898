import { type ChildProcess, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Test } from 'tap';
import { readProcessStat } from '../../src/embedded/process-stat.ts';
import { projectRoot } from '../../src/root.ts';
import { freePorts } from './free-port.ts';

const program = path.join(projectRoot, 'scripts', 'core.mjs');

export interface CoreProcess {
  pid: number;
  stdout: string[];
  stderr: string[];
  /** Resolves at the first line of stdout or stderr, past or to come, that matches. */
  line(pattern: RegExp): Promise<string>;
  /** Process id of what Core supervises under this name; its log level must be debug. */
  child(name: string): Promise<number>;
  signal(signal: NodeJS.Signals): void;
  /** Exit code and signal, once it has ended. */
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/**
 * Settings of a Core with all three embedded servers. Every port is its own: test files run side by side,
 * and a port that is left out would be the same one for each of them.
 */
export async function settingsOnFreePorts(dataDir: string) {
  const [port, adminPort, postgresPort, redisPort, clickhousePort] = await freePorts(5);
  return {
    CORE_DATA_DIR: dataDir,
    CORE_PORT: String(port),
    CORE_ADMIN_PORT: String(adminPort),
    CORE_POSTGRES_PORT: String(postgresPort),
    CORE_REDIS_PORT: String(redisPort),
    CORE_CLICKHOUSE_PORT: String(clickhousePort),
  };
}

/** Runs a command of Core as `npm start` does, but without npm; stopped at the teardown. */
export function startCore(
  t: Test,
  args: readonly string[],
  settings: Record<string, string>,
): CoreProcess {
  return startProgram(t, process.execPath, [program, ...args], settings);
}

/** Runs a program in the checkout, with these settings of Core and no others. */
export function startProgram(
  t: Test,
  command: string,
  args: readonly string[],
  settings: Record<string, string>,
): CoreProcess {
  const process_ = spawn(command, args, {
    cwd: projectRoot,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...withoutSettings(process.env), ...settings },
  });
  const heard = new EventEmitter();
  heard.setMaxListeners(0);
  const stdout = collect(process_.stdout, heard);
  const stderr = collect(process_.stderr, heard);
  const exited = untilExit(process_, heard);
  t.teardown(async () => {
    process_.kill('SIGTERM');
    await exited;
  });
  let ended = false;
  void exited.then(() => {
    ended = true;
  });
  const line = async (pattern: RegExp): Promise<string> => {
    for (;;) {
      const found = [...stdout, ...stderr].find((one) => pattern.test(one));
      if (found !== undefined) return found;
      if (ended) throw new Error(`core ended without ${pattern}:\n${stderr.join('\n')}`);
      await once(heard, 'change');
    }
  };
  return {
    pid: process_.pid ?? 0,
    stdout,
    stderr,
    line,
    child: async (name) => {
      const said = await line(new RegExp(`"msg":"${name} is ready"`));
      return (JSON.parse(said) as { childPid: number }).childPid;
    },
    signal: (signal) => void process_.kill(signal),
    exited,
  };
}

/** Whether a process with this id runs. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return process.platform !== 'linux' || readProcessStat(pid)?.state !== 'dead';
  } catch {
    return false;
  }
}

function collect(stream: Readable, heard: EventEmitter): string[] {
  const lines: string[] = [];
  createInterface({ input: stream }).on('line', (line) => {
    lines.push(line);
    heard.emit('change');
  });
  return lines;
}

function untilExit(child: ChildProcess, heard: EventEmitter): CoreProcess['exited'] {
  return new Promise((resolve) => {
    // `close` comes after the last line of output, `exit` may come before it. An embedded server
    // that outlives Core keeps no pipe of it open: its output goes to a file.
    child.once('close', (code, signal) => {
      resolve({ code, signal });
      // Whoever waits for a line looks once more, after `ended` has been set.
      setImmediate(() => heard.emit('change'));
    });
  });
}

/** The settings of whoever runs the tests must not reach the Core under test. */
function withoutSettings(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(environment).filter(
      ([name]) => !/^CORE_|^(DATABASE|REDIS|CLICKHOUSE)_URL$/.test(name),
    ),
  );
}
