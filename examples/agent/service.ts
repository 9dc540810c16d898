import type { NodeConfig } from '../../src/contract/node-config.ts';
import type { Logger } from '../../src/log.ts';
import { account, type Reading } from './account.ts';
import { describe } from './client.ts';
import type { ConfigStore } from './config-store.ts';
import { readCounters } from './counters.ts';
import type { Ledger } from './ledger.ts';
import type { ProxyRunner, RunningProxy } from './proxy.ts';
import type { Settings } from './settings.ts';
import { renderForProxy } from './v2ray-config.ts';

/** What Core is to hear about the node's configuration. */
export type Report =
  | { kind: 'applied'; revision: number }
  | { kind: 'error'; code: string; message: string; revision: number | undefined };

interface Running {
  proxy: RunningProxy;
  config: NodeConfig;
  apiPort: number;
}

/** Each takes up to 3 s. */
const lastReadsMax = 5;
const restartMsMin = 500;
const restartMsMax = 30_000;
/** A proxy that ran for this long has recovered: the next restart waits the least again. */
const recoveredMs = 60_000;

export type Service = ReturnType<typeof createService>;

/**
 * The proxy, its configuration and its counters. One thing happens at a time: a configuration is
 * never applied while counters are read.
 */
export function createService(deps: {
  settings: Settings;
  ledger: Ledger;
  configs: ConfigStore;
  runner: ProxyRunner;
  log: Logger;
  report: (report: Report) => void;
}) {
  const { settings, ledger, configs, runner, log, report } = deps;
  let running: Running | undefined;
  let lane: Promise<unknown> = Promise.resolve();
  let isClosed = false;
  let wasFull = false;
  let isSampling = false;
  let restartTimer: NodeJS.Timeout | undefined;
  let restartMs = restartMsMin;

  const inLane = <T>(work: () => Promise<T>): Promise<T> => {
    const done = lane.then(work);
    lane = done.catch(() => undefined);
    return done;
  };

  const read = async ({ proxy, config, apiPort }: Running): Promise<Reading> => {
    const clients = Object.keys(config.clientMap).length;
    const counters = await readCounters({ program: settings.v2ctl, apiPort, clients });
    return { proxyId: proxy.id, counters, config };
  };

  /** Before the proxy is stopped: what is not read now is lost, so a busy node gets more time. */
  const readLast = async (from: Running): Promise<Reading> => {
    for (let tries = 1; tries < lastReadsMax; tries += 1) {
      try {
        return await read(from);
      } catch (thrown) {
        log.warn({ err: thrown }, 'the proxy does not say its counters, asking again');
      }
    }
    return read(from);
  };

  /**
   * Turns what the proxy has counted into spooled posts. Where this fails, or the spool is full, the
   * baseline stays, and the next sample takes the bytes along. `isLast`: there will be no next one.
   */
  const sample = async (isLast: boolean): Promise<void> => {
    try {
      const ask = isLast ? readLast : read;
      const reading = running === undefined ? undefined : await ask(running);
      if (!isLast && ledger.isFull()) {
        if (!wasFull) log.error(ledger.size(), 'spool full: usage is held back in the proxy');
        wasFull = true;
        return;
      }
      wasFull = false;
      const time = { nowMs: Date.now(), restMs: settings.offlineSeconds * 1_000 };
      const { posts, baseline } = account(ledger.baseline(), reading, time);
      if (posts.length > 0) ledger.commit(posts, baseline);
    } catch (thrown) {
      const text = isLast ? 'counters lost: they could not be read a last time' : 'no sample taken';
      log[isLast ? 'error' : 'warn']({ err: thrown }, text);
    }
  };

  const adopt = (proxy: RunningProxy): void => {
    running = { proxy, ...configs.read(proxy.configFile) };
    const startedMs = performance.now();
    void proxy.exited.then((words) => inLane(() => ended(proxy, words, startedMs)));
  };

  /** The proxy ended by itself. What it had counted since the last sample went with it. */
  const ended = async (proxy: RunningProxy, words: string, startedMs: number): Promise<void> => {
    if (running?.proxy !== proxy) return;
    running = undefined;
    if (performance.now() - startedMs > recoveredMs) restartMs = restartMsMin;
    log.error({ proxy: proxy.id, words }, 'the proxy ended by itself');
    const message = `The proxy ended by itself: ${words.slice(-1_000)}`;
    report({ kind: 'error', code: 'PROXY_EXITED', message, revision: configs.applied() });
    startLater();
  };

  const startLater = (): void => {
    clearTimeout(restartTimer);
    if (isClosed) return;
    restartTimer = setTimeout(() => void inLane(startApplied), restartMs);
    restartMs = Math.min(restartMsMax, restartMs * 2);
  };

  const startApplied = async (): Promise<void> => {
    const file = configs.appliedFile();
    const revision = configs.applied();
    if (isClosed || running !== undefined || file === undefined || revision === undefined) return;
    try {
      adopt(await runner.start(file));
      log.info({ revision }, 'the proxy runs');
      report({ kind: 'applied', revision });
    } catch (thrown) {
      log.error({ err: thrown }, 'the proxy does not start');
      report({ kind: 'error', code: 'PROXY_EXITED', message: describe(thrown), revision });
      startLater();
    }
  };

  const stop = async (): Promise<void> => {
    clearTimeout(restartTimer);
    if (running === undefined) return;
    await sample(true);
    const { proxy } = running;
    running = undefined;
    await runner.stop(proxy);
  };

  /** Undefined where the proxy now runs this file; else the old one goes on. */
  const replace = async (file: string): Promise<{ code: string; message: string } | undefined> => {
    const fault = await runner.test(file);
    if (fault !== undefined) return { code: 'CONFIG_REFUSED', message: fault };
    await stop();
    try {
      adopt(await runner.start(file));
      restartMs = restartMsMin;
      return undefined;
    } catch (thrown) {
      await startApplied();
      return { code: 'PROXY_NOT_STARTED', message: describe(thrown) };
    }
  };

  const apply = async (config: NodeConfig): Promise<Report> => {
    const { revision } = config;
    const failed = (code: string, message: string): Report => {
      log.error({ revision, code, message }, 'configuration not applied, the old one goes on');
      return { kind: 'error', code, message: message.slice(-4_000), revision };
    };
    const rendered = renderForProxy(config, settings);
    if (rendered.kind === 'refused') {
      return failed('CONFIG_UNSUPPORTED', rendered.message);
    }
    if (rendered.kind === 'nothing') {
      await stop();
    } else {
      const isSame = running && configs.isSame(running.proxy.configFile, rendered.json);
      // Also where the proxy need not restart: should it crash, this is what it is started with.
      const file = configs.save(config, rendered.json);
      const fault = isSame ? undefined : await replace(file);
      if (fault !== undefined) return failed(fault.code, fault.message);
    }
    configs.setApplied(revision, running?.proxy.configFile);
    log.info({ revision, ...(running && { proxy: running.proxy.id }) }, 'configuration applied');
    return { kind: 'applied', revision };
  };

  return {
    /** Takes over the proxy of an agent that was killed, or starts the configuration applied last. */
    start: () =>
      inLane(async () => {
        const left = runner.adopt();
        if (left === undefined) return startApplied();
        log.info({ proxy: left.id }, 'took over the running proxy');
        adopt(left);
      }),
    apply: (config: NodeConfig): Promise<Report> => inLane(() => apply(config)),
    /** Nothing where the last one still waits for its turn. */
    async sample(): Promise<void> {
      if (isSampling) return;
      isSampling = true;
      await inLane(() => sample(false));
      isSampling = false;
    },
    /** Reads the counters a last time and stops the proxy. */
    close(): Promise<void> {
      isClosed = true;
      return inLane(stop);
    },
  };
}
