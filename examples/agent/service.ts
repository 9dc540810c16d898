import type { NodeConfig } from '../../src/contract/node-config.ts';
import type { Logger } from '../../src/log.ts';
import { account, linksOf, type Reading } from './account.ts';
import { changeRunning, setRules } from './change-running.ts';
import { describe } from './client.ts';
import type { Clock } from './clock.ts';
import type { ConfigStore, Runtime } from './config-store.ts';
import { drainProxy, type Ending, endSessions, readStill } from './end-sessions.ts';
import { faultyPart } from './faulty-part.ts';
import type { Ledger } from './ledger.ts';
import { linksToEnd, type Plan, planChange } from './plan.ts';
import type { ProxyRunner, RunningProxy } from './proxy.ts';
import { type Report, reportsOf } from './reports.ts';
import type { Running } from './running.ts';
import type { Settings } from './settings.ts';
import { type Counters, openXrayApi } from './xray-api.ts';
import {
  apiPortOf,
  environmentOf,
  renderForXray,
  type Tagged,
  type XrayConfig,
} from './xray-config.ts';

interface Deps {
  settings: Settings;
  clock: Clock;
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
    /** @returns what Core must hear of it, in this order. */
    apply: (config: NodeConfig): Promise<Report[]> =>
      inLane(state, () => apply(deps, state, config)),
    /** What Core must hear of the revision that was applied last. */
    standing: (): Report[] => standing(deps),
    /** Does nothing while an earlier sample waits for its turn. */
    async sample(): Promise<void> {
      if (state.isSampling) return;
      state.isSampling = true;
      await inLane(state, () => sample(deps, state, 'running')).finally(() => {
        state.isSampling = false;
      });
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
 * bound, the baseline stays, and the next sample covers these bytes, too. `last`: no sample follows.
 */
async function sample(deps: Deps, state: State, when: 'running' | 'last'): Promise<void> {
  const { settings, clock, ledger, log } = deps;
  const isLast = when === 'last';
  try {
    const { running } = state;
    const reading = running && (await (isLast ? readLast(deps, running) : readOnce(running)));
    if (!isLast && ledger.isFull()) {
      if (!state.wasFull) {
        log.error(ledger.size(), 'stored posts reached their bound: usage stays in the proxy');
      }
      state.wasFull = true;
      return;
    }
    state.wasFull = false;
    const before = ledger.baseline();
    const time = { nowMs: clock.nowMs(), restMs: settings.offlineSeconds * 1_000 };
    const { posts, baseline } = account(before, reading, time);
    ledger.commit(posts, baseline);
    deps.runner.boundLog();
    if (running !== undefined && reading !== undefined && !isLast) {
      await endLingering(deps, state, running, reading);
    }
  } catch (thrown) {
    const text = isLast ? 'counters lost: they could not be read a last time' : 'no sample taken';
    log[isLast ? 'error' : 'warn']({ err: thrown }, text);
  }
}

async function readOnce({ api, proxy, links, listed }: Running): Promise<Reading> {
  const [counters, online] = await Promise.all([api.counters(), api.online()]);
  for (const uuid of online.keys()) listed.add(uuid);
  return { proxyId: proxy.id, counters, links, online };
}

/** After this the agent stops the proxy, and what it has not read is lost. So it asks more than once. */
async function readLast({ log }: Deps, running: Running): Promise<Reading> {
  const { api, proxy, links } = running;
  const noBody = new Map<string, string[]>();
  for (let tries = 1; ; tries += 1) {
    try {
      const counters = await readStill(() => api.counters());
      return { proxyId: proxy.id, counters, links, online: noBody };
    } catch (thrown) {
      if (tries === lastReadsMax) throw thrown;
      log.warn({ err: thrown }, 'the proxy does not answer with its counters; asking again');
    }
  }
}

/** A removed link whose counters still move, or that is online: its sessions are ended once more. */
async function endLingering(
  deps: Deps,
  state: State,
  running: Running,
  reading: Reading,
): Promise<void> {
  const ending = [...running.blocked].flatMap((uuid): Ending[] => {
    const bytes = bytesOf(reading.counters, uuid);
    const isMoving = bytes > (running.endedAtBytes.get(uuid) ?? bytes);
    running.endedAtBytes.set(uuid, bytes);
    const nodeProtocolId = running.links.get(uuid)?.nodeProtocolId;
    const inbound = running.xray.inbounds.find(({ tag }) => tag === `in-${nodeProtocolId}`);
    if (inbound === undefined || (!isMoving && !reading.online.has(uuid))) return [];
    return [{ uuid, inbound, isMoving }];
  });
  if (ending.length === 0 || (await endSessions(deps, running, ending))) return;
  await restartToEnd(deps, state);
}

function bytesOf(counters: Counters, uuid: string): number {
  const of = (way: string): number => counters[`user>>>${uuid}>>>traffic>>>${way}`] ?? 0;
  return of('uplink') + of('downlink');
}

/** The last resort, which ends the sessions of everybody. */
async function restartToEnd(deps: Deps, state: State): Promise<void> {
  deps.log.warn({}, 'the proxy restarts, because sessions of removed links could not be ended');
  await stop(deps, state);
  await startCurrent(deps, state);
}

async function adoptOrStart(deps: Deps, state: State): Promise<void> {
  const left = deps.runner.adopt();
  if (left === undefined) return startCurrent(deps, state);
  const known = deps.configs.runtime();
  const runtime: Runtime =
    known?.proxyId === left.id
      ? known
      : {
          proxyId: left.id,
          revision: deps.configs.revisionOf(left.configFile),
          isChanging: false,
          former: {},
          blocked: [],
        };
  deps.log.info({ proxy: left.id, revision: runtime.revision }, 'took over the running proxy');
  adopt(deps, state, left, runtime);
  if (!runtime.isChanging) return;
  deps.log.warn({}, 'the agent was killed during a change: the proxy restarts');
  await stop(deps, state);
  await startCurrent(deps, state);
}

function adopt(deps: Deps, state: State, proxy: RunningProxy, runtime: Runtime): void {
  const { config, xray } = deps.configs.read(runtime.revision);
  const apiPort = apiPortOf(xray);
  const links = new Map([...Object.entries(runtime.former), ...linksOf(config)]);
  state.running = {
    ...{ proxy, api: openXrayApi(apiPort), apiPort, xray, links },
    ...{ revision: runtime.revision, blocked: new Set(runtime.blocked) },
    ...{ listed: new Set<string>(), endedAtBytes: new Map<string, number>() },
  };
  deps.configs.setRuntime(runtime);
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
  state.running.api.close();
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
  const start = (): void => void inLane(state, () => startCurrent(deps, state));
  state.restartTimer = setTimeout(start, state.restartMs);
  state.restartMs = Math.min(restartMsMax, state.restartMs * 2);
}

async function startCurrent(deps: Deps, state: State): Promise<void> {
  const { configs, log, report } = deps;
  const current = configs.current();
  if (state.isClosed || state.running !== undefined || current === undefined) return;
  const { revision, file } = current;
  try {
    await startOn(deps, state, file);
    log.info({ revision }, 'the proxy runs');
    for (const one of standing(deps)) report(one);
  } catch (thrown) {
    log.error({ err: thrown }, 'the proxy does not start');
    report({ kind: 'error', code: 'PROXY_EXITED', message: describe(thrown), revision });
    startLater(deps, state);
  }
}

function standing({ configs }: Deps): Report[] {
  const revision = configs.applied();
  if (revision === undefined) return [];
  const config = configs.sent(revision);
  return config === undefined ? [{ kind: 'applied', revision }] : reportsOf(config);
}

async function startOn(deps: Deps, state: State, file: string): Promise<void> {
  const { configs, runner } = deps;
  const revision = configs.revisionOf(file);
  const proxy = await runner.start(file, environmentOf(configs.read(revision).xray));
  const none = { isChanging: false, former: {}, blocked: [] };
  adopt(deps, state, proxy, { proxyId: proxy.id, revision, ...none });
}

/** Reads the counters once nothing moves any more, then ends the proxy. */
async function stop(deps: Deps, state: State): Promise<void> {
  clearTimeout(state.restartTimer);
  const { running } = state;
  if (running === undefined) return;
  // Should the agent be killed now, the next one finds a proxy without inbounds.
  saveRuntime(deps, running, { isChanging: true });
  await drainProxy(running);
  await sample(deps, state, 'last');
  state.running = undefined;
  running.api.close();
  await deps.runner.stop(running.proxy);
}

function saveRuntime({ configs }: Deps, running: Running, { isChanging }: { isChanging: boolean }) {
  const current = linksOf(configs.read(running.revision).config);
  const former = [...running.links].filter(([uuid]) => !current.has(uuid));
  configs.setRuntime({
    proxyId: running.proxy.id,
    revision: running.revision,
    isChanging,
    former: Object.fromEntries(former),
    blocked: [...running.blocked],
  });
}

async function apply(deps: Deps, state: State, config: NodeConfig): Promise<Report[]> {
  const { settings, configs, log } = deps;
  const { revision } = config;
  const xray = renderForXray(config, settings);
  const file = configs.save(config, xray);
  if (xray === undefined) {
    await stop(deps, state);
  } else {
    const fault = await bring(deps, state, { config, xray, file });
    if (fault !== undefined) {
      const { code, message } = fault;
      log.error({ revision, code, message }, 'configuration not applied, the old one goes on');
      const part = faultyPart(message, xray);
      return [{ kind: 'error', code, message: message.slice(-4_000), revision, details: part }];
    }
  }
  const { running } = state;
  configs.setApplied(revision, running?.proxy.configFile);
  const said = reportsOf(config);
  log.info({ revision, ...(running && { proxy: running.proxy.id }) }, 'configuration applied');
  if (said.length > 1) log.error({ said: said.slice(1) }, 'a part of it cannot run here');
  return said;
}

interface Next {
  config: NodeConfig;
  xray: XrayConfig;
  file: string;
}
type Fault = { code: string; message: string } | undefined;

/** Returns undefined if the proxy now runs the next configuration. Otherwise the old one goes on. */
async function bring(deps: Deps, state: State, next: Next): Promise<Fault> {
  const { running } = state;
  const plan: Plan =
    running === undefined
      ? { kind: 'restart', why: 'it does not run' }
      : planChange(running.xray, next.xray);
  if (plan.kind !== 'same') {
    const fault = await deps.runner.test(next.file);
    if (fault !== undefined) return { code: 'CONFIG_REFUSED', message: fault };
  }
  if (running === undefined || plan.kind === 'restart') return restart(deps, state, next, plan);
  return changeTo(deps, state, running, next, plan);
}

async function restart(deps: Deps, state: State, { file }: Next, plan: Plan): Promise<Fault> {
  deps.log.info(plan, 'the proxy starts with a new configuration');
  await stop(deps, state);
  try {
    await startOn(deps, state, file);
    state.restartMs = restartMsMin;
    return undefined;
  } catch (thrown) {
    await startCurrent(deps, state);
    return { code: 'PROXY_NOT_STARTED', message: describe(thrown) };
  }
}

/** Changes the running proxy by its API. Sessions of links that stay go on. */
async function changeTo(
  deps: Deps,
  state: State,
  running: Running,
  next: Next,
  plan: Exclude<Plan, { kind: 'restart' }>,
): Promise<Fault> {
  const ending = linksToEnd(running.xray, next.xray);
  for (const [uuid, link] of linksOf(next.config)) running.links.set(uuid, link);
  if (plan.kind === 'changes') {
    saveRuntime(deps, running, { isChanging: true });
    const changed = await changeRunning(deps.runner, running, next.xray, plan);
    if (changed.kind === 'broken') {
      deps.log.error({ message: changed.message }, 'a change was refused half-way: restarting');
      await stop(deps, state);
      await startCurrent(deps, state);
    }
    if (changed.kind === 'refused') saveRuntime(deps, running, { isChanging: false });
    if (changed.kind !== 'done') return { code: 'CONFIG_REFUSED', message: changed.message };
    const { usersAdded, usersRemoved, inbounds, outbounds } = plan;
    const counts = { added: usersAdded.length, removed: usersRemoved.length };
    deps.log.info({ ...counts, inbounds: inbounds.length, outbounds: outbounds.length }, 'changed');
  }
  running.xray = next.xray;
  running.revision = next.config.revision;
  const isEnded = await endRemoved(deps, running, ending);
  saveRuntime(deps, running, { isChanging: false });
  if (isEnded) return undefined;
  deps.log.warn({}, 'the proxy restarts, because sessions of removed links could not be ended');
  return restart(deps, state, next, { kind: 'restart', why: 'sessions of removed links go on' });
}

/** Blocks removed links that have ever connected to this process, and ends their sessions. */
async function endRemoved(
  { runner, ledger, log }: Deps,
  running: Running,
  removed: ReadonlyMap<string, Tagged>,
): Promise<boolean> {
  const served = linksInXray(running.xray);
  const back = [...running.blocked].filter((uuid) => served.has(uuid));
  for (const uuid of back) running.blocked.delete(uuid);
  const counters = removed.size === 0 ? {} : await running.api.counters();
  const { counters: base } = ledger.baseline();
  const ending: Ending[] = [];
  for (const [uuid, inbound] of removed) {
    // Xray makes the counter at the first stream, so a link without one has nothing open.
    if (counters[`user>>>${uuid}>>>traffic>>>uplink`] === undefined) continue;
    if (!served.has(uuid)) running.blocked.add(uuid);
    ending.push({ uuid, inbound, isMoving: bytesOf(counters, uuid) !== bytesOf(base, uuid) });
  }
  if (back.length === 0 && ending.length === 0) return true;
  try {
    await setRules(runner, running, running.xray);
    const isEnded = await endSessions({ runner, log }, running, ending);
    const after = await running.api.counters();
    for (const { uuid } of ending) running.endedAtBytes.set(uuid, bytesOf(after, uuid));
    return isEnded;
  } catch (thrown) {
    log.error({ err: thrown }, 'sessions of removed links could not be ended');
    return false;
  }
}

function linksInXray({ inbounds }: XrayConfig): Set<string> {
  return new Set(
    inbounds.flatMap((inbound) => {
      const settings = inbound['settings'] as { clients?: { email: string }[] } | undefined;
      return (settings?.clients ?? []).map(({ email }) => email);
    }),
  );
}
