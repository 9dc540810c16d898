import { type FuzzCase, fuzzCase } from './cases.ts';
import { createFuzzConnection, type Met } from './connection.ts';
import { type FuzzedCore, startFuzzedCore } from './core.ts';
import { heavyBytes, heavyRequests } from './heavy.ts';
import { judge } from './judge.ts';

interface FuzzOptions {
  /** Settings of Core: the stores and free ports. */
  environment: Record<string, string>;
  seed: number;
  /** Number of the first case. */
  from: number;
  cases: number;
  connections: number;
  /** If given, the run begins with heavy requests, each alone, which may hold the api for this long. */
  stallMsMax?: number;
  signal?: AbortSignal;
  onProgress?: (done: number, residentMb: number | undefined) => void;
}

export interface Violation {
  /** Number of the case; undefined if no single case caused it. */
  index: number | undefined;
  reason: string;
}

export interface FuzzResult {
  done: number;
  seconds: number;
  /** How often each outcome came: a status, `closed` or `silent`. */
  met: Map<string, number>;
  /** Memory of the api process, sampled at even steps through the run. */
  residentMb: number[];
  /** The longest turn of the api process in each heavy request. */
  stalls: Stall[];
  violations: Violation[];
}

interface Stall {
  name: string;
  /** CPU time. */
  longestTurnMs: number;
}

/** The first request of a kind also pays for compiling, so each is sent this often. */
const heavyRepeats = 3;
const violationsMax = 20;
/** Memory samples in a run. */
const samples = 40;
/** In a shorter run the heap is still growing to its working size, so memory is not judged. */
const memoryCasesMin = 50_000;

/** Runs the cases against an api process of its own, and stops it. */
export async function runFuzz(options: FuzzOptions): Promise<FuzzResult> {
  const core = await startFuzzedCore(options.environment);
  const result: FuzzResult = {
    done: 0,
    seconds: 0,
    met: new Map(),
    residentMb: [],
    stalls: [],
    violations: [],
  };
  const startedMs = performance.now();
  try {
    if (options.stallMsMax !== undefined) await sendHeavy(core, options.stallMsMax, result);
    let next = options.from;
    const end = options.from + options.cases;
    const take = (): number | undefined => {
      const enough = result.violations.length >= violationsMax || core.faults().length > 0;
      if (next >= end || enough || options.signal?.aborted === true) return undefined;
      next += 1;
      return next - 1;
    };
    const lanes = Array.from({ length: options.connections }, () =>
      runLane(core, options, take, result),
    );
    await Promise.all(lanes);
    result.seconds = (performance.now() - startedMs) / 1_000;
    for (const reason of core.faults()) result.violations.push({ index: undefined, reason });
    const growth = options.cases < memoryCasesMin ? undefined : memoryGrowth(result.residentMb);
    if (growth !== undefined) result.violations.push({ index: undefined, reason: growth });
    return result;
  } finally {
    await core.stop();
  }
}

/** Sends heavy requests one at a time, so that a long turn belongs to one of them. */
async function sendHeavy(core: FuzzedCore, stallMsMax: number, result: FuzzResult): Promise<void> {
  for (const heavy of heavyRequests()) {
    for (const isGzip of [false, true]) {
      const name = `${heavy.path}${isGzip ? ', gzip' : ''}: ${heavy.name}`;
      const isCutOff = heavy.isCutOff === true && !isGzip;
      const asks = isCutOff ? undefined : { method: 'POST', path: heavy.path };
      const parts = [heavyBytes(heavy, core.authKey, isGzip)];
      let longestTurnMs = 0;
      for (let repeat = 0; repeat < heavyRepeats; repeat += 1) {
        const connection = createFuzzConnection(core.port);
        await core.longestTurnMs();
        const one = { parts, asks, isHead: false };
        record(result, undefined, one, await connection.exchange(one), core.authKey);
        longestTurnMs = Math.max(longestTurnMs, await core.longestTurnMs());
        connection.close();
      }
      result.stalls.push({ name, longestTurnMs });
      if (longestTurnMs <= stallMsMax) continue;
      const reason = `${name} holds the api for ${longestTurnMs.toFixed(1)} ms`;
      result.violations.push({ index: undefined, reason });
    }
  }
}

async function runLane(
  core: FuzzedCore,
  options: FuzzOptions,
  take: () => number | undefined,
  result: FuzzResult,
): Promise<void> {
  const connection = createFuzzConnection(core.port);
  const sampleEvery = Math.max(1, Math.floor(options.cases / samples));
  for (let index = take(); index !== undefined; index = take()) {
    const one = fuzzCase(options.seed, index, core.authKey);
    let met: Met;
    try {
      met = await connection.exchange(one);
    } catch (thrown) {
      met = { outcome: 'violation', reason: `no connection: ${String(thrown)}` };
    }
    record(result, index, one, met, core.authKey);
    result.done += 1;
    if (result.done % sampleEvery === 0) {
      const residentMb = core.residentMb();
      if (residentMb !== undefined) result.residentMb.push(residentMb);
      options.onProgress?.(result.done, residentMb);
    }
  }
  connection.close();
}

function record(
  result: FuzzResult,
  index: number | undefined,
  one: FuzzCase,
  met: Met,
  authKey: string,
): void {
  const count = (what: string): void => {
    result.met.set(what, (result.met.get(what) ?? 0) + 1);
  };
  if (met.outcome === 'violation') {
    result.violations.push({ index, reason: met.reason });
    return;
  }
  if (met.outcome !== 'answered') {
    count(met.outcome);
    return;
  }
  for (const answer of met.answers) {
    count(String(answer.status));
    const fault = judge(answer, one.asks, [authKey], one.isHead);
    if (fault !== undefined) result.violations.push({ index, reason: fault });
  }
}

/** A violation if the memory of the last quarter is well over that of the second quarter. */
function memoryGrowth(residentMb: readonly number[]): string | undefined {
  const quarter = Math.floor(residentMb.length / 4);
  const second = Math.max(...residentMb.slice(quarter, 2 * quarter));
  const last = Math.max(...residentMb.slice(-quarter));
  if (quarter === 0 || last <= second * 1.15 + 32) return undefined;
  return `memory grows: ${second} MB in the second quarter, ${last} MB in the last`;
}
