import { setTimeout as delay } from 'node:timers/promises';
import type { FailpointName } from '../../../src/failpoints.ts';
import { createRandom, nodeSeed } from '../simulator/random.ts';
import { untilDrained } from './drain.ts';
import type { PassHandler } from './failpoint-server.ts';
import type { Victim } from './killable.ts';
import { repeatLate } from './late-repeats.ts';
import { type FaultStores, findViolations, type Violation } from './oracle.ts';
import type { Post } from './posts.ts';
import type { Scenario } from './scenarios.ts';
import type { Hold, Kill, RoundPlan } from './schedule.ts';
import type { Servers } from './servers.ts';
import { type FaultLedger, sendTraffic } from './traffic.ts';
import { type FaultWorld, keepOutboundTags } from './world.ts';

/** What happened in one round, and what the oracle found. */
export interface RoundResult {
  round: number;
  kills: { victim: Victim; at: string }[];
  holds: number;
  /** The scenario's own report. */
  note: string | undefined;
  /** Faults that did not happen because the round was over first. */
  missed: number;
  posts: readonly Post[];
  /** Rows that the stores have of this round's posts. */
  rows: number;
  tookMs: number;
  violations: Violation[];
}

export interface RoundContext {
  servers: Servers;
  stores: FaultStores;
  world: FaultWorld;
  ledger: FaultLedger;
  seed: number;
  /** Longest time until the posts are answered, and then until the backlog has drained. */
  trafficMsMax: number;
  drainMsMax: number;
  /** Played in addition to the plan's faults. */
  scenario: Scenario | undefined;
  /** Share of posts with a number. */
  numberedShare: number;
  /** Whether every post comes again once Core has forgotten its id. */
  repeatsLate: boolean;
  /** Posts go on until the scenario ends. */
  lasting: boolean;
  awaySeconds: number;
}

/** Checks of a round. A difference that a later check no longer finds is no violation. */
const looksMax = 3;

/** Plays one plan against the running servers under load, waits for the backlog to drain, and checks. */
export async function runRound(context: RoundContext, plan: RoundPlan): Promise<RoundResult> {
  const { servers, ledger } = context;
  const startedMs = performance.now();
  const deathsBefore = servers.deaths.length;
  const unexpectedBefore = ledger.unexpected.length;
  await keepOutboundTags(context.stores.pool, context.world);
  const faults = armFaults(servers, plan);
  const random = createRandom(nodeSeed(context.seed, plan.round));
  const scenario = context.scenario?.({ ...context, random, round: plan.round });
  const played = new AbortController();
  // It is awaited below. If it fails before that, the rejection must not end the harness.
  scenario?.catch(() => undefined).finally(() => played.abort());
  const posts = await sendTraffic({
    ...context,
    ...plan,
    url: servers.url,
    deadlineMs: context.trafficMsMax,
    until: context.lasting ? played.signal : undefined,
  });
  await faults.finish();
  const note = context.repeatsLate
    ? await repeatLate({ ...context, round: plan.round })
    : await scenario;
  const { violations, rows } = await drainAndCheck(context, posts);
  for (const text of ledger.unexpected.slice(unexpectedBefore)) {
    violations.push({ kind: 'other', text });
  }
  for (const text of servers.deaths.slice(deathsBefore)) {
    violations.push({ kind: 'other', text: `other: ${text}` });
  }
  return {
    round: plan.round,
    kills: faults.kills,
    note,
    holds: faults.holds(),
    missed: faults.missed(),
    posts,
    rows,
    tookMs: performance.now() - startedMs,
    violations,
  };
}

async function drainAndCheck(
  context: RoundContext,
  posts: readonly Post[],
): Promise<{ violations: Violation[]; rows: number }> {
  const { stores, world, ledger, servers } = context;
  const { redisPrefix: prefix } = servers.config.stores;
  for (let look = 1; ; look += 1) {
    const drained = await untilDrained(stores, context.drainMsMax);
    const given = { posts, allPosts: ledger.posts, world, prefix };
    const checked = await retried(() => findViolations(stores, given));
    if (!drained)
      checked.violations.push({ kind: 'other', text: 'other: the backlog did not drain' });
    if (!drained || checked.violations.length === 0 || look === looksMax) return checked;
  }
}

/** Repeats the work, since the harness' own connections may have died with a store. */
async function retried<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (thrown) {
      if (tries === 20) throw thrown;
      await delay(250);
    }
  }
}

/** Lets the plan's faults happen from now on, until `finish`. */
function armFaults(servers: Servers, plan: RoundPlan) {
  const kills: { victim: Victim; at: string }[] = [];
  const timers = new Set<NodeJS.Timeout>();
  const pending = new Set<Kill | Hold>([...plan.kills, ...plan.holds]);
  const passes = new Map<FailpointName, number>();
  let holds = 0;

  const kill = (victim: Victim, at: string, downMs: number): void => {
    if (servers.processes.get(victim)?.kill(downMs) === true) kills.push({ victim, at });
  };
  const after = (ms: number, work: () => void): void => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      work();
    }, ms);
    timers.add(timer);
  };
  const strike = (fault: Kill, at: string): void => {
    pending.delete(fault);
    kill(fault.victim, at, fault.downMs);
    const { again } = fault;
    if (again !== undefined) {
      after(again.afterMs, () => kill(again.victim, 'recovery', again.downMs));
    }
  };
  const onPass: PassHandler = async (_role, name) => {
    const pass = (passes.get(name) ?? 0) + 1;
    passes.set(name, pass);
    const isNow = ({ when }: Kill | Hold): boolean =>
      'failpoint' in when && when.failpoint === name && when.pass === pass;
    for (const hold of plan.holds.filter(isNow)) {
      pending.delete(hold);
      holds += 1;
      await delay(hold.ms);
    }
    for (const fault of plan.kills.filter(isNow)) strike(fault, name);
  };
  servers.failpoints.onPass(onPass);
  for (const fault of plan.kills) {
    if ('afterMs' in fault.when) after(fault.when.afterMs, () => strike(fault, 'random'));
  }
  return {
    kills,
    holds: () => holds,
    missed: () => pending.size,
    /** Waits for the timed kills, ends all other faults, and waits until every process is up. */
    async finish(): Promise<void> {
      await graceForFailpoints(pending, plan.poison ? bisectMsMax : loadedMsMax);
      while (timers.size > 0) await delay(20);
      servers.failpoints.onPass(async () => undefined);
      while (timers.size > 0) await delay(20);
      for (const process of servers.processes.values()) await process.up();
    },
  };
}

/** How long after the last answer a load may still pass a failpoint, and how long a bisect. */
const loadedMsMax = 500;
const bisectMsMax = 15_000;

async function graceForFailpoints(pending: ReadonlySet<unknown>, msMax: number): Promise<void> {
  const giveUpAtMs = performance.now() + msMax;
  while (pending.size > 0 && performance.now() < giveUpAtMs) await delay(20);
}
