import { existsSync, readdirSync, realpathSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Test } from 'tap';
import { readStill } from '../../examples/agent/end-sessions.ts';
import { type Counters, openXrayApi } from '../../examples/agent/xray-api.ts';
import { processesIn } from '../../src/linux-processes.ts';
import { projectRoot } from '../../src/root.ts';
import { until } from './api.ts';
import { type CoreProcess, startProgram } from './core-process.ts';

/** The agent as a process on one data directory, and the Xray that it runs. */
export function agentOn(
  t: Test,
  options: { dataDir: string; coreUrl: string; apiPort: number; code: string; xray: string },
) {
  const { dataDir, coreUrl, apiPort, code, xray } = options;
  const api = openXrayApi(apiPort);
  let agent: CoreProcess | undefined;
  /** The counters of proxies that have ended. */
  const past: Counters = {};
  const running = (): CoreProcess => {
    if (agent === undefined) throw new Error('the agent was not started');
    return agent;
  };
  const proxies = (): number[] => proxiesIn(path.join(dataDir, 'proxy'));
  t.teardown(() => {
    for (const line of (agent?.stderr ?? []).slice(-40)) t.comment(line);
    api.close();
    for (const pid of proxies()) process.kill(pid, 'SIGKILL');
  });
  /** The API is away while Xray starts. */
  const read = async (): Promise<Counters> => {
    const ask = () => api.counters().catch(() => undefined);
    const counters = await until(ask, (answer) => answer !== undefined, waitMsMax);
    return counters ?? {};
  };

  return {
    start(): void {
      const seconds = ['--heartbeat-seconds', '0.2', '--usage-seconds', String(usageSeconds)];
      agent = startProgram(
        t,
        process.execPath,
        [
          path.join(projectRoot, 'dist', 'examples', 'agent', 'main.js'),
          ...['--url', coreUrl, '--code', code, '--data-dir', dataDir, '--xray', xray],
          ...['--api-port', String(apiPort), '--retry-seconds', '1', '--offline-seconds', '2'],
          ...['--reapply-seconds', '1', ...seconds],
        ],
        {},
      );
    },
    said: (pattern: RegExp): Promise<string> =>
      within(running().line(pattern), `the agent says ${pattern}`),
    /** The lines of this kind that the agent has logged since it was started. */
    lines: (pattern: RegExp): string[] => running().stderr.filter((line) => pattern.test(line)),
    signal: (signal: NodeJS.Signals): void => running().signal(signal),
    ended: () => within(running().exited, 'the agent ends'),
    /** Kills the agent alone. Its proxy goes on. */
    async kill(): Promise<void> {
      running().signal('SIGKILL');
      await running().exited;
    },
    /** Process id of the proxy, as soon as there is one other than `former`. */
    async proxy(former?: number): Promise<number> {
      const found = await until(
        async () => proxies().find((pid) => pid !== former),
        (pid) => pid !== undefined,
        waitMsMax,
      );
      return found as number;
    },
    /**
     * Takes what Core has stored as the figures of the proxies that have ended: nobody can ask them any
     * more. Call it after Core was compared with what clients received.
     */
    async retireFromStored(stored: { uuid: string; up: number; down: number }[]): Promise<void> {
      const now = await read();
      for (const { uuid, up, down } of stored) {
        const running = bytesOf(now, `user>>>${uuid}`);
        past[`user>>>${uuid}>>>traffic>>>uplink`] = up - running.up;
        past[`user>>>${uuid}>>>traffic>>>downlink`] = down - running.down;
      }
    },
    /** The running proxy's own counters. */
    counters: read,
    /** The proxy's own counters, summed up over all of its processes, once they stand still. */
    async figures(): Promise<Counters> {
      const sums = { ...past };
      for (const [name, value] of Object.entries(await readStill(read))) {
        sums[name] = (sums[name] ?? 0) + value;
      }
      return sums;
    },
    /** Posts that Core has not acknowledged. A killed agent may also leave a `.tmp` file, which is none. */
    storedPosts: (): number =>
      readdirSync(path.join(dataDir, 'spool')).filter((name) => name.endsWith('.json')).length,
    refused: (): number => readdirSync(path.join(dataDir, 'refused')).length,
  };
}

/** The folder has other processes of Xray's for moments: its own commands. */
function proxiesIn(folder: string): number[] {
  if (!existsSync(folder)) return [];
  return processesIn(realpathSync(folder))
    .filter(({ argv }) => argv[1] === 'run')
    .map(({ pid }) => pid);
}

/** How often the agent reads the counters, and so what a killed proxy may lose. */
export const usageSeconds = 0.5;

/** Long, since the machine may be busy. Only a test that fails waits for it. */
export const waitMsMax = 120_000;

/** Fails if the promise takes longer than `waitMsMax`, and says what it was. */
export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`not done after ${waitMsMax} ms: ${what}`)),
      waitMsMax,
    );
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The bytes of one owner (`user>>>UUID` or `outbound>>>tag`) in a set of counters. */
export function bytesOf(counters: Counters, owner: string): { up: number; down: number } {
  return {
    up: counters[`${owner}>>>traffic>>>uplink`] ?? 0,
    down: counters[`${owner}>>>traffic>>>downlink`] ?? 0,
  };
}

/** An address that is not loopback, because Xray does not list who comes from there. */
export function ownAddress(): string {
  const all = Object.values(os.networkInterfaces()).flat();
  return all.find((one) => one?.family === 'IPv4' && !one.internal)?.address ?? '127.0.0.1';
}
