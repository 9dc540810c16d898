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

/** What the agent tells Core about the node's configuration. */
export type Report =
  | { kind: 'applied'; revision: number }
  | { kind: 'error'; code: string; message: string; revision: number | undefined };

interface Running {
  proxy: RunningProxy;
  config: NodeConfig;
  apiPort: number;
}

interface Deps {
  settings: Settings;
  ledger: Ledger;
  configs: ConfigStore;
  runner: ProxyRunner;
  log: Logger;
  report: (report: Report) => void;
}

interface State {
  running: Running | undefined;
  /** The last piece of work that was given to `inLane`. */
  lane: Promise<unknown>;
  isClosed: boolean;
  wasFull: boolean;
  isSampling: boolean;
  restartTimer: NodeJS.Timeout | undefined;
  restartMs: number;
}

/** Each of these reads takes up to 3 s. */
const lastReadsMax = 5;
const restartMsMin = 500;
const restartMsMax = 30_000;
/** A proxy that ran for this long has recovered, so the next restart waits `restartMsMin` again. */
const recoveredMs = 60_000;

export type Service = ReturnType<typeof createService>;

/**
 * The proxy, its configuration and its counters. One thing happens at a time: a configuration is
 * never applied while counters are read.
 */
export function createService(deps: Deps) {
  const state: State = {
    running: undefined,
    lane: Promise.resolve(),
    isClosed: false,
    wasFull: false,
    isSampling: false,
    restartTimer: undefined,
    restartMs: restartMsMin,
  };
  return {
    /** Takes over the proxy of an agent that was killed, or starts the configuration applied last. */
    start: (): Promise<void> => inLane(state, () => adoptOrStart(deps, state)),
    apply: (config: NodeConfig): Promise<Report> => inLane(state, () => apply(deps, state, config)),
    /** Does nothing while an earlier sample waits for its turn. */
    async sample(): Promise<void> {
      if (state.isSampling) return;
      state.isSampling = true;
      await inLane(state, () => sample(deps, state, false));
      state.isSampling = false;
    },
    /** Reads the counters a last time and stops the proxy. */
    close(): Promise<void> {
      state.isClosed = true;
      return inLane(state, () => stop(deps, state));
    },
  };
}

function inLane<T>(state: State, work: () => Promise<T>): Promise<T> {
  const done = state.lane.then(work);
  // The caller hears of a failure. The next work runs all the same.
  state.lane = done.catch(() => undefined);
  return done;
}

/**
 * Turns what the proxy has counted into posts. If this fails, or if the stored posts have reached their
 * bound, the baseline stays, and the next sample covers these bytes, too. `isLast`: no sample follows.
 */
async function sample(deps: Deps, state: State, isLast: boolean): Promise<void> {
  const { settings, ledger, log } = deps;
  try {
    const read = isLast ? readLast : readOnce;
    const reading = state.running === undefined ? undefined : await read(deps, state.running);
    if (!isLast && ledger.isFull()) {
      if (!state.wasFull) {
        log.error(ledger.size(), 'stored posts reached their bound: usage stays in the proxy');
      }
      state.wasFull = true;
      return;
    }
    state.wasFull = false;
    const time = { nowMs: Date.now(), restMs: settings.offlineSeconds * 1_000 };
    const { posts, baseline } = account(ledger.baseline(), reading, time);
    if (posts.length > 0) ledger.commit(posts, baseline);
  } catch (thrown) {
    const text = isLast ? 'counters lost: they could not be read a last time' : 'no sample taken';
    log[isLast ? 'error' : 'warn']({ err: thrown }, text);
  }
}

async function readOnce({ settings }: Deps, running: Running): Promise<Reading> {
  const { proxy, config, apiPort } = running;
  const clients = Object.keys(config.clientMap).length;
  const counters = await readCounters({ program: settings.v2ctl, apiPort, clients });
  return { proxyId: proxy.id, counters, config };
}

/**
 * After this the agent stops the proxy, and what it has not read is lost. So a busy machine gets more time.
 */
async function readLast(deps: Deps, running: Running): Promise<Reading> {
  for (let tries = 1; tries < lastReadsMax; tries += 1) {
    try {
      return await readOnce(deps, running);
    } catch (thrown) {
      deps.log.warn({ err: thrown }, 'the proxy does not answer with its counters; asking again');
    }
  }
  return readOnce(deps, running);
}

async function adoptOrStart(deps: Deps, state: State): Promise<void> {
  const left = deps.runner.adopt();
  if (left === undefined) return startApplied(deps, state);
  deps.log.info({ proxy: left.id }, 'took over the running proxy');
  adopt(deps, state, left);
}

function adopt(deps: Deps, state: State, proxy: RunningProxy): void {
  state.running = { proxy, ...deps.configs.read(proxy.configFile) };
  const startedMs = performance.now();
  void proxy.exited.then((words) =>
    inLane(state, async () => ended(deps, state, { proxy, words, startedMs })),
  );
}

/** The proxy ended by itself, so what it counted after the last sample is lost. */
function ended(
  deps: Deps,
  state: State,
  end: { proxy: RunningProxy; words: string; startedMs: number },
): void {
  const { proxy, words, startedMs } = end;
  if (state.running?.proxy !== proxy) return;
  state.running = undefined;
  if (performance.now() - startedMs > recoveredMs) state.restartMs = restartMsMin;
  deps.log.error({ proxy: proxy.id, words }, 'the proxy ended by itself');
  const message = `The proxy ended by itself: ${words.slice(-1_000)}`;
  const revision = deps.configs.applied();
  deps.report({ kind: 'error', code: 'PROXY_EXITED', message, revision });
  startLater(deps, state);
}

function startLater(deps: Deps, state: State): void {
  clearTimeout(state.restartTimer);
  if (state.isClosed) return;
  const start = (): void => void inLane(state, () => startApplied(deps, state));
  state.restartTimer = setTimeout(start, state.restartMs);
  state.restartMs = Math.min(restartMsMax, state.restartMs * 2);
}

async function startApplied(deps: Deps, state: State): Promise<void> {
  const { configs, runner, log, report } = deps;
  const file = configs.appliedFile();
  const revision = configs.applied();
  const isIdle = !state.isClosed && state.running === undefined;
  if (!isIdle || file === undefined || revision === undefined) return;
  try {
    adopt(deps, state, await runner.start(file));
    log.info({ revision }, 'the proxy runs');
    report({ kind: 'applied', revision });
  } catch (thrown) {
    log.error({ err: thrown }, 'the proxy does not start');
    report({ kind: 'error', code: 'PROXY_EXITED', message: describe(thrown), revision });
    startLater(deps, state);
  }
}

async function stop(deps: Deps, state: State): Promise<void> {
  clearTimeout(state.restartTimer);
  if (state.running === undefined) return;
  await sample(deps, state, true);
  const { proxy } = state.running;
  state.running = undefined;
  await deps.runner.stop(proxy);
}

async function apply(deps: Deps, state: State, config: NodeConfig): Promise<Report> {
  const { settings, configs, log } = deps;
  const { revision } = config;
  const failed = (code: string, message: string): Report => {
    log.error({ revision, code, message }, 'configuration not applied, the old one goes on');
    return { kind: 'error', code, message: message.slice(-4_000), revision };
  };
  const rendered = renderForProxy(config, settings);
  if (rendered.kind === 'refused') return failed('CONFIG_UNSUPPORTED', rendered.message);
  if (rendered.kind === 'nothing') {
    await stop(deps, state);
  } else {
    const { running } = state;
    const isSame = running && configs.isSame(running.proxy.configFile, rendered.json);
    // Saved even if the proxy need not restart: after a crash it is started with this file.
    const file = configs.save(config, rendered.json);
    const fault = isSame ? undefined : await replace(deps, state, file);
    if (fault !== undefined) return failed(fault.code, fault.message);
  }
  const proxy = state.running?.proxy;
  configs.setApplied(revision, proxy?.configFile);
  log.info({ revision, ...(proxy && { proxy: proxy.id }) }, 'configuration applied');
  return { kind: 'applied', revision };
}

/** Returns undefined if the proxy now runs this file. Otherwise the old configuration goes on. */
async function replace(
  deps: Deps,
  state: State,
  file: string,
): Promise<{ code: string; message: string } | undefined> {
  const fault = await deps.runner.test(file);
  if (fault !== undefined) return { code: 'CONFIG_REFUSED', message: fault };
  await stop(deps, state);
  try {
    adopt(deps, state, await deps.runner.start(file));
    state.restartMs = restartMsMin;
    return undefined;
  } catch (thrown) {
    await startApplied(deps, state);
    return { code: 'PROXY_NOT_STARTED', message: describe(thrown) };
  }
}
