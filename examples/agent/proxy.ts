import { execFile, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { readIfThere } from '../../src/durable-file.ts';
import { processesIn } from '../../src/linux-processes.ts';
import { describe } from './client.ts';
import { isRunning, processId } from './process-id.ts';

const run = promisify(execFile);

export interface RunningProxy {
  /** As processId returns it. Counters belong to this one process. */
  id: string;
  pid: number;
  configFile: string;
  /** Resolves with the last lines of its log once it has ended. */
  exited: Promise<string>;
}

const testMsMax = 30_000;
const startMsMax = 20_000;
const stopMsMax = 5_000;
const pollMs = 20;
/** How often the agent looks for a proxy that it did not start, because no event reports its end. */
const adoptedPollMs = 250;
const logCharsMax = 2_000;

export type ProxyRunner = ReturnType<typeof createProxyRunner>;

/**
 * Starts, stops and finds the proxy. The proxy's working directory is a folder of this agent's own, and its
 * arguments name its configuration file. If the agent is killed, the proxy goes on. The agent's next start
 * finds the proxy by the folder, and reads from its arguments what it runs.
 */
export function createProxyRunner(options: { program: string; dataDir: string }) {
  mkdirSync(path.join(options.dataDir, 'proxy'), { recursive: true, mode: 0o700 });
  const dir = realpathSync(path.join(options.dataDir, 'proxy'));
  const logFile = path.join(dir, 'proxy.log');
  const lastWords = (): string => (readIfThere(logFile) ?? '').trim().slice(-logCharsMax);

  return {
    /** Why the proxy refuses this configuration; undefined if it accepts it. */
    async test(configFile: string): Promise<string | undefined> {
      try {
        await run(options.program, ['-test', '-config', configFile], {
          cwd: options.dataDir,
          timeout: testMsMax,
        });
        return undefined;
      } catch (thrown) {
        const { stdout = '', stderr = '' } = thrown as { stdout?: string; stderr?: string };
        return `${stdout}${stderr}`.trim().slice(-logCharsMax) || describe(thrown);
      }
    },

    /**
     * Resolves once every inbound listens.
     * @throws Error with what the proxy logged, if it ends or is not up in 20 s.
     */
    async start(configFile: string): Promise<RunningProxy> {
      const log = openSync(logFile, 'w', 0o600);
      // Detached, so that a Ctrl-C reaches only the agent. The agent then reads the counters a last time
      // before it stops the proxy.
      const child = spawn(options.program, ['-config', configFile], {
        cwd: dir,
        stdio: ['ignore', log, log],
        detached: true,
      });
      closeSync(log);
      const exited = new Promise<string>((resolve) => {
        child.once('error', (error) => resolve(error.message));
        child.once('exit', () => resolve(lastWords()));
      });
      let ended = false;
      void exited.then(() => {
        ended = true;
      });
      const { pid } = child;
      const giveUpAtMs = performance.now() + startMsMax;
      while (!ended && performance.now() < giveUpAtMs) {
        // v2ray logs this line once all of its inbounds are open.
        const isUp = /V2Ray [\d.]+ started/.test(readIfThere(logFile) ?? '');
        const id = pid === undefined ? undefined : processId(pid);
        if (isUp && pid !== undefined && id !== undefined) return { id, pid, configFile, exited };
        await Promise.race([delay(pollMs), exited]);
      }
      child.kill('SIGKILL');
      const words = await exited;
      throw new Error(`${options.program} did not start: ${words}`);
    },

    /** The proxy that a killed agent left running, if there is one. */
    adopt(): RunningProxy | undefined {
      for (const { pid, argv } of processesIn(dir)) {
        const configFile = argv[argv.indexOf('-config') + 1];
        const id = processId(pid);
        if (!argv.includes('-config') || configFile === undefined || id === undefined) continue;
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
  };
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
