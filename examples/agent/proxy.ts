import { execFile, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  realpathSync,
  statSync,
  truncateSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { readIfThere, writeDurable } from '../../src/durable-file.ts';
import { processesIn } from '../../src/linux-processes.ts';
import { describe } from './client.ts';
import { isRunning, processId } from './process-id.ts';
import type { JsonObject } from './xray-config.ts';

const run = promisify(execFile);

export interface RunningProxy {
  /** As processId returns it. Counters belong to this one process. */
  id: string;
  pid: number;
  configFile: string;
  /** Resolves with the last lines of its log once it has ended. */
  exited: Promise<string>;
}

const testMsMax = 60_000;
const startMsMax = 30_000;
const stopMsMax = 5_000;
const commandSecondsMax = 20;
const pollMs = 20;
/** How often the agent looks for a proxy that it did not start, because no event reports its end. */
const adoptedPollMs = 250;
const logCharsMax = 2_000;
const logBytesMax = 8_388_608;

export type ProxyRunner = ReturnType<typeof createProxyRunner>;

/**
 * Starts, stops and finds Xray. Its working directory is a folder of this agent's own, and its arguments
 * name its configuration file. If the agent is killed, Xray goes on. The agent's next start finds it by
 * the folder.
 */
export function createProxyRunner(options: { program: string; dataDir: string }) {
  mkdirSync(path.join(options.dataDir, 'proxy'), { recursive: true, mode: 0o700 });
  const dir = realpathSync(path.join(options.dataDir, 'proxy'));
  const logFile = path.join(dir, 'proxy.log');
  const changeFile = path.join(dir, 'change.json');
  const lastWords = (): string => lastWordsOf(logFile);

  return {
    version: remembered(options.program),

    /** Why Xray refuses this configuration; undefined if it accepts it. */
    async test(configFile: string): Promise<string | undefined> {
      const args = ['run', '-test', '-c', configFile];
      try {
        await run(options.program, args, { cwd: options.dataDir, timeout: testMsMax });
        return undefined;
      } catch (thrown) {
        return wordsOf(thrown);
      }
    },

    /**
     * Lets Xray's own command build a part from JSON and hand it to the running process: `adi` and `ado`
     * add inbounds and outbounds, `adrules` replaces the rules.
     * @throws Error with what Xray printed.
     */
    async change(command: 'adi' | 'ado' | 'adrules', apiPort: number, config: JsonObject) {
      writeDurable(changeFile, JSON.stringify(config));
      const where = [`--server=127.0.0.1:${apiPort}`, `--timeout=${commandSecondsMax}`, changeFile];
      const timeout = commandSecondsMax * 2_000;
      try {
        await run(options.program, ['api', command, ...where], { cwd: dir, timeout });
      } catch (thrown) {
        throw new Error(wordsOf(thrown), { cause: thrown });
      }
    },

    /**
     * Resolves once every inbound listens.
     * @param env settings that an Xray before 26.7.11 takes from its environment only.
     * @throws Error with what Xray logged, if it ends or is not up in 30 s.
     */
    start: (configFile: string, env: Record<string, string>): Promise<RunningProxy> =>
      startProxy({ ...options, dir, logFile }, configFile, env),

    /** The proxy that a killed agent left running, if there is one. */
    adopt(): RunningProxy | undefined {
      for (const { pid, argv } of processesIn(dir)) {
        const configFile = argv[argv.indexOf('-c') + 1];
        const id = processId(pid);
        if (argv[1] !== 'run' || configFile === undefined || id === undefined) continue;
        return { id, pid, configFile, exited: untilGone(id).then(lastWords) };
      }
      return undefined;
    },

    /** Ends the proxy, and all sessions with it. */
    async stop(proxy: RunningProxy): Promise<void> {
      for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
        if (isRunning(proxy.id)) kill(proxy.pid, signal);
        const giveUpAtMs = performance.now() + stopMsMax;
        while (isRunning(proxy.id) && performance.now() < giveUpAtMs) await delay(pollMs);
      }
      await proxy.exited;
    },

    /** Empties the log if it is large: Xray warns of every scanner that knocks. */
    boundLog(): void {
      const bytes = statSync(logFile, { throwIfNoEntry: false })?.size ?? 0;
      if (bytes > logBytesMax) truncateSync(logFile, 0);
    },
  };
}

async function startProxy(
  { program, dir, logFile }: { program: string; dir: string; logFile: string },
  configFile: string,
  env: Record<string, string>,
): Promise<RunningProxy> {
  closeSync(openSync(logFile, 'w', 0o600));
  // Appending, so that the file can be emptied while Xray writes to it.
  const log = openSync(logFile, 'a', 0o600);
  // Detached, so that a Ctrl-C reaches only the agent. The agent then reads the counters a last time
  // before it stops the proxy.
  const child = spawn(program, ['run', '-c', configFile], {
    cwd: dir,
    stdio: ['ignore', log, log],
    detached: true,
    env: { ...inherited(), ...env },
  });
  closeSync(log);
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', () => resolve(lastWordsOf(logFile)));
  });
  let ended = false;
  void exited.then(() => {
    ended = true;
  });
  const { pid } = child;
  const giveUpAtMs = performance.now() + startMsMax;
  while (!ended && performance.now() < giveUpAtMs) {
    // Xray logs this line once all of its inbounds are open.
    const isUp = /Xray [\d.]+ started/.test(readIfThere(logFile) ?? '');
    const id = pid === undefined ? undefined : processId(pid);
    if (isUp && pid !== undefined && id !== undefined) return { id, pid, configFile, exited };
    await Promise.race([delay(pollMs), exited]);
  }
  child.kill('SIGKILL');
  const words = await exited;
  throw new Error(`${program} did not start: ${words}`);
}

function lastWordsOf(logFile: string): string {
  return (readIfThere(logFile) ?? '').trim().slice(-logCharsMax);
}

/**
 * The version of an Xray program, for instance `26.7.28`.
 * @throws Error if there is no such program, or if it is not Xray.
 */
export async function versionOf(program: string): Promise<string> {
  const { stdout } = await run(program, ['version'], { timeout: testMsMax });
  const version = /^Xray (\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  if (version === undefined) throw new Error(`${program} is not Xray: ${stdout.slice(0, 200)}`);
  return version;
}

/** Asks the program again only if its file has changed. */
function remembered(program: string): () => Promise<string> {
  let known: { mark: string; version: string } | undefined;
  return async () => {
    const stat = statSync(fileOf(program) ?? program, { throwIfNoEntry: false });
    const mark = `${stat?.ino} ${stat?.size} ${stat?.mtimeMs}`;
    if (known?.mark !== mark) known = { mark, version: await versionOf(program) };
    return known.version;
  };
}

/** The file of a program that is named by a path, or is on the PATH. */
export function fileOf(program: string): string | undefined {
  if (program.includes('/')) return existsSync(program) ? program : undefined;
  const folders = (process.env['PATH'] ?? '').split(path.delimiter);
  return folders.map((folder) => path.join(folder, program)).find((file) => existsSync(file));
}

/** Xray needs the PATH, and the folder of its geo files and the certificates, if they are set. */
function inherited(): Record<string, string> {
  const names = /^(PATH|HOME|TZ|LANG|XRAY_.*|SSL_CERT_.*|GO.*)$/;
  const entries = Object.entries(process.env).filter(([name]) => names.test(name));
  return Object.fromEntries(entries) as Record<string, string>;
}

function wordsOf(thrown: unknown): string {
  const { stdout = '', stderr = '' } = thrown as { stdout?: string; stderr?: string };
  const lines = `${stdout}${stderr}`.split('\n').filter((line) => !/ is deprecated/.test(line));
  return lines.join('\n').trim().slice(-logCharsMax) || describe(thrown);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (thrown) {
    // ESRCH: it has ended by itself meanwhile.
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown;
  }
}

async function untilGone(id: string): Promise<void> {
  // The timer does not keep the agent's process alive.
  while (isRunning(id)) await delay(adoptedPollMs, undefined, { ref: false });
}
