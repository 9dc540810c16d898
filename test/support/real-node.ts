import { existsSync, readdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import type { Test } from 'tap';
import { type Counters, readCounters } from '../../examples/agent/counters.ts';
import { processesIn } from '../../src/linux-processes.ts';
import { projectRoot } from '../../src/root.ts';
import { until } from './api.ts';
import { type CoreProcess, startProgram } from './core-process.ts';

/** The reference agent as a process on one data directory, and the proxy that it runs. */
export function agentOn(
  t: Test,
  options: { dataDir: string; coreUrl: string; apiPort: number; code: string },
) {
  const { dataDir, coreUrl, apiPort, code } = options;
  let agent: CoreProcess | undefined;
  /** The counters of proxies that have ended. */
  const past: Counters = {};
  const running = (): CoreProcess => {
    if (agent === undefined) throw new Error('the agent was not started');
    return agent;
  };
  const proxies = (): number[] => {
    const folder = path.join(dataDir, 'proxy');
    return existsSync(folder) ? processesIn(realpathSync(folder)).map(({ pid }) => pid) : [];
  };
  t.teardown(() => {
    for (const line of (agent?.stderr ?? []).slice(-40)) t.comment(line);
    for (const pid of proxies()) process.kill(pid, 'SIGKILL');
  });
  /** v2ctl gives up after 3 s, which is too short on a busy machine. So it is asked until it answers. */
  const read = async (): Promise<Counters> => {
    const ask = () =>
      readCounters({ program: 'v2ctl', apiPort, clients: 1 }).catch(() => undefined);
    const counters = await until(ask, (answer) => answer !== undefined, waitMsMax);
    return counters ?? {};
  };

  return {
    start(): void {
      const seconds = ['--heartbeat-seconds', '0.2', '--usage-seconds', '0.3'];
      agent = startProgram(
        t,
        process.execPath,
        [
          path.join(projectRoot, 'scripts', 'agent.mjs'),
          ...['--url', coreUrl, '--code', code, '--data-dir', dataDir],
          ...['--api-port', String(apiPort), '--retry-seconds', '1', '--offline-seconds', '2'],
          ...['--reapply-seconds', '1', ...seconds],
        ],
        {},
      );
    },
    said: (pattern: RegExp): Promise<string> =>
      within(running().line(pattern), `the agent says ${pattern}`),
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
    /** Keeps the counters of the proxy that is about to end. Call it while there is no traffic. */
    async retire(): Promise<void> {
      for (const [name, value] of Object.entries(await read())) {
        past[name] = (past[name] ?? 0) + value;
      }
    },
    /** The proxy's own counters, summed up over all of its processes. */
    async figures(): Promise<Counters> {
      const sums = { ...past };
      for (const [name, value] of Object.entries(await read())) {
        sums[name] = (sums[name] ?? 0) + value;
      }
      return sums;
    },
    past: (): Counters => ({ ...past }),
    /** Posts that Core has not acknowledged. A killed agent may also leave a `.tmp` file, which is none. */
    storedPosts: (): number =>
      readdirSync(path.join(dataDir, 'spool')).filter((name) => name.endsWith('.json')).length,
    refused: (): number => readdirSync(path.join(dataDir, 'refused')).length,
  };
}

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
