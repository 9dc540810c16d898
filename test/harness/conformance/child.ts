import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import net from 'node:net';
import { createInterface } from 'node:readline';

/** A running program, and the newest lines that it printed. */
export interface Child {
  log(): string;
  /** Whether it has ended by itself. */
  hasEnded(): boolean;
  stop(): Promise<void>;
}

const linesKept = 2_000;
const linesShown = 5;
const readyMsMax = 60_000;
const askAgainMs = 50;

/**
 * Starts a program and waits until it prints that it is ready.
 * @throws Error with what it printed if it ends before, or takes longer than a minute.
 */
export async function startChild(options: {
  file: string;
  args: readonly string[];
  /** What it prints then, or the port on loopback on which it answers then. */
  ready: RegExp | number;
  environment?: Record<string, string>;
  folder?: string;
  /** SIGKILL if not given: a proxy has nothing to tidy up. */
  stopSignal?: NodeJS.Signals;
  /** Gets everything that the program prints. */
  logFile: string;
}): Promise<Child> {
  const { file, args, ready, environment = {}, folder, logFile } = options;
  const { stopSignal = 'SIGKILL' } = options;
  const written = createWriteStream(logFile, { flags: 'a' });
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...environment },
    ...(folder === undefined ? {} : { cwd: folder }),
  });
  const lines: string[] = [];
  let ended = false;
  const exited = new Promise<void>((resolve) => {
    const end = (): void => {
      ended = true;
      resolve();
    };
    // Not `exit`: what it printed last comes after that.
    child.once('close', end).once('error', (thrown) => {
      lines.push(thrown.message);
      end();
    });
  });
  const log = (): string => lines.join('\n');
  let started = false;
  const isReady = new Promise<void>((resolve) => {
    const hasStarted = (): void => {
      started = true;
      resolve();
    };
    if (typeof ready === 'number') {
      void untilAnswers(ready, () => ended).then((answers) => answers && hasStarted());
    }
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line);
        written.write(`${line}\n`);
        if (lines.length > linesKept) lines.shift();
        if (typeof ready !== 'number' && ready.test(line)) hasStarted();
      });
    }
  });
  const stop = async (): Promise<void> => {
    if (!ended) child.kill(stopSignal);
    await exited;
    written.end();
  };
  const timer = new AbortController();
  const late = once(timer.signal, 'abort', { signal: AbortSignal.timeout(readyMsMax) });
  await Promise.race([isReady, exited, late.catch(() => undefined)]);
  timer.abort();
  if (ended || !started) {
    await stop();
    throw new Error(`${file} did not start: ${lines.slice(-linesShown).join('\n')}`);
  }
  return { log, hasEnded: () => ended, stop };
}

/**
 * Resolves once somebody listens on the port. Xray drops lines of its log if many come at once, so its line
 * about the start may be missing.
 */
async function untilAnswers(port: number, hasEnded: () => boolean): Promise<boolean> {
  const deadlineMs = performance.now() + readyMsMax;
  while (!hasEnded() && performance.now() < deadlineMs) {
    const socket = net.connect({ host: '127.0.0.1', port });
    const answered = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    socket.destroy();
    if (answered) return true;
    await new Promise((resume) => setTimeout(resume, askAgainMs));
  }
  return false;
}

export type Finished = { ok: true; output: string } | { ok: false; output: string };

/** Runs a program to its end, and returns what it printed. */
export function runToEnd(
  file: string,
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<Finished> {
  return new Promise((resolve) => {
    const options = {
      timeout: readyMsMax,
      maxBuffer: 64 * 1_048_576,
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...environment },
    };
    execFile(file, [...args], options, (failure, stdout, stderr) => {
      resolve({ ok: failure === null, output: failure === null ? stdout : `${stdout}${stderr}` });
    });
  });
}
