import { type ChildProcess, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Test } from 'tap';
import { readProcessStat } from '../../src/linux-processes.ts';
import { projectRoot } from '../../src/root.ts';
import { freePorts } from './free-port.ts';

const program = path.join(projectRoot, 'scripts', 'core.mjs');

export interface CoreProcess {
  pid: number;
  stdout: string[];
  stderr: string[];
  /** Resolves with the first line of stdout or stderr that matches. Earlier lines count, too. */
  line(pattern: RegExp): Promise<string>;
  /** Id of the process that Core supervises under this name. Core's log level must be debug. */
  child(name: string): Promise<number>;
  signal(signal: NodeJS.Signals): void;
  /** Resolves with exit code and signal when the process has ended. */
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/**
 * Settings of a Core with all three embedded servers. They set every port, since test files run side
 * by side, and all of them would use the same default port.
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

/** Runs a command of Core as `npm start` does, but without npm. The teardown stops it. */
export function startCore(
  t: Test,
  args: readonly string[],
  settings: Record<string, string>,
): CoreProcess {
  return startProgram(t, process.execPath, [program, ...args], settings);
}

/** Runs a program in the checkout with these settings of Core and no others. */
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

/** Whether a process with this id is running. */
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
    // `close` comes after the last line of output, and `exit` may come before it. An embedded server
    // that outlives Core does not delay `close`, since its output goes to a file.
    child.once('close', (code, signal) => {
      resolve({ code, signal });
      // A waiting `line` looks once more, after `ended` has been set.
      setImmediate(() => heard.emit('change'));
    });
  });
}

/** The environment without Core's settings, which must not reach the Core under test. */
function withoutSettings(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(environment).filter(
      ([name]) => !/^CORE_|^(DATABASE|REDIS|CLICKHOUSE)_URL$/.test(name),
    ),
  );
}
