import { setMaxListeners } from 'node:events';
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import { Command, InvalidArgumentError, Option } from 'commander';
import type pg from 'pg';
import { type Config, readConfig } from '../../src/config.ts';
import { toCoreError } from '../../src/errors.ts';
import { integer } from '../../src/integer.ts';
import { Lifecycle, untilSignalled } from '../../src/lifecycle.ts';
import { rekeyNode } from '../../src/nodes/change.ts';
import { withStoredSecrets } from '../../src/secrets.ts';
import { type ClickHouseClient, createClickHouse } from '../../src/stores/clickhouse.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { type Agent, createAgent } from './simulator/agent.ts';
import { attempt, createTarget } from './simulator/client.ts';
import { compareStores } from './simulator/comparison.ts';
import { pause } from './simulator/deliver.ts';
import { eachBounded } from './simulator/each.ts';
import { readFound } from './simulator/found.ts';
import { createLedger, type Ledger, recordUnexpected } from './simulator/ledger.ts';
import { runAgent } from './simulator/loops.ts';
import { runOperator } from './simulator/operator.ts';
import type { FleetOptions } from './simulator/options.ts';
import { startProgress } from './simulator/progress.ts';
import { registerAgent } from './simulator/register.ts';
import { isGood, type Outcome, reportJson, reportText } from './simulator/report.ts';
import { untilSettled } from './simulator/until-settled.ts';
import { createWorld, type World } from './simulator/world.ts';

interface Stores {
  pool: pg.Pool;
  clickhouse: ClickHouseClient;
}

/** Nodes that register at the same time. */
const registeringMax = 32;
/** Enough for 10,000 registrations with a busy Core. */
const registrationSecondsMax = 300;

const decimal =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (text !== '' && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Not a number from ${min} to ${max}.`);
  };

function readOptions(config: Config): FleetOptions {
  const seconds = decimal(0.01, 86_400);
  const share = decimal(0, 1);
  const program = new Command('fleet')
    .description(
      'Acts as a fleet of nodes towards a running Core, then checks what Core has stored.',
    )
    .option('--url <url>', 'URL at which Core listens', defaultUrl(config))
    .option('--nodes <n>', 'nodes to create and run', integer(1, 10_000), 50)
    .option('--users <n>', 'users, each with one subscription', integer(1, 200_000), 2_000)
    .option('--nodes-per-user <n>', 'nodes that a subscription is used on', integer(1, 100), 2)
    .option('--seconds <s>', 'how long the agents run', decimal(1, 86_400), 60)
    .option('--seed <n>', 'seed of everything random', integer(0, 4_294_967_295), 1)
    .option('--heartbeat-every <s>', 'seconds between heartbeats of a node', seconds, 10)
    .option('--usage-every <s>', 'seconds between usage posts of a node', seconds, 5)
    .option('--outbound-every <s>', 'seconds between outbound posts of a node', seconds, 10)
    .option('--session-every <s>', 'seconds between session posts of a node', seconds, 7)
    .option(
      '--change-every <s>',
      'seconds between config changes, 0 for none',
      decimal(0, 3_600),
      5,
    )
    .addOption(
      new Option('--entries <n>', 'entries in each usage post')
        .argParser(integer(1, 100_000))
        .default(undefined, 'the active users of the node'),
    )
    .option('--duplicates <share>', 'share of posts sent twice on purpose', share, 0.03)
    .option('--cuts <share>', 'share of posts cut off after sending', share, 0.02)
    .option('--timeout <s>', 'seconds until an attempt counts as unanswered', seconds, 10)
    .option('--drain <s>', 'seconds to retry what is unanswered after the run', seconds, 60)
    .option('--settle <s>', 'seconds that Core may take to settle what it acked', seconds, 60)
    .option('--json', 'print one JSON value and nothing else', false)
    .parse();
  const given = program.opts();
  return {
    url: given['url'],
    nodes: given['nodes'],
    users: given['users'],
    nodesPerUser: given['nodesPerUser'],
    seconds: given['seconds'],
    seed: given['seed'],
    heartbeatEveryMs: given['heartbeatEvery'] * 1_000,
    usageEveryMs: given['usageEvery'] * 1_000,
    outboundEveryMs: given['outboundEvery'] * 1_000,
    sessionEveryMs: given['sessionEvery'] * 1_000,
    changeEveryMs: given['changeEvery'] * 1_000,
    entries: given['entries'],
    duplicates: given['duplicates'],
    cuts: given['cuts'],
    timeoutMs: given['timeout'] * 1_000,
    drainSeconds: given['drain'],
    settleSeconds: given['settle'],
    json: given['json'],
  };
}

function defaultUrl(config: Config): string {
  return `http://127.0.0.1:${config.http.port}`;
}

/** Fails with one clear line if Core does not answer, before anything is created. */
async function requireCore(options: FleetOptions): Promise<void> {
  const target = createTarget(options.url);
  const signal = new AbortController().signal;
  const request = { method: 'GET', path: '/readyz', headers: {}, body: undefined } as const;
  const answer = await attempt(target, request, { timeoutMs: options.timeoutMs, signal });
  target.connections.destroy();
  if (answer.kind === 'answered' && answer.status === 200) return;
  const why =
    answer.kind === 'answered' ? `it answers ${answer.status}: ${answer.body}` : answer.reason;
  throw new Error(`No Core is ready at ${options.url} (${why}). Start one with: npm start`);
}

/**
 * Registers every agent over HTTP. `interrupted` ends it early. Otherwise an agent that does not
 * register in time is a fault of Core.
 */
async function registerAll(
  agents: readonly Agent[],
  recode: (nodeId: number) => Promise<string>,
  ledger: Ledger,
  interrupted: Promise<unknown>,
): Promise<Agent[]> {
  let isInterrupted = false;
  const giveUp = (): void => {
    for (const agent of agents) if (agent.authKey === '') agent.end.abort();
  };
  const timer = setTimeout(giveUp, registrationSecondsMax * 1_000);
  void interrupted.then(() => {
    isInterrupted = true;
    giveUp();
  });
  const registered: Agent[] = [];
  await eachBounded(agents, registeringMax, async (agent) => {
    if (await registerAgent(agent, recode)) registered.push(agent);
  });
  clearTimeout(timer);
  const missing = agents.length - registered.length;
  if (missing > 0 && !isInterrupted) recordUnexpected(ledger, `${missing} nodes never registered`);
  return registered;
}

/** Runs the agents until the time is over or somebody interrupts, then lets them deliver what is left. */
async function runAgents(
  agents: readonly Agent[],
  options: FleetOptions,
  interrupted: Promise<unknown>,
): Promise<number> {
  const startedMs = performance.now();
  const running = Promise.all(agents.map((agent) => runAgent(agent)));
  const timer = new AbortController();
  await Promise.race([pause(options.seconds * 1_000, timer.signal), interrupted, running]);
  timer.abort();
  const ranSeconds = (performance.now() - startedMs) / 1_000;
  for (const agent of agents) agent.stop.abort();
  const drainTimer = setTimeout(() => {
    for (const agent of agents) agent.end.abort();
  }, options.drainSeconds * 1_000);
  await running;
  clearTimeout(drainTimer);
  return ranSeconds;
}

async function runFleet(
  config: Config,
  options: FleetOptions,
  stores: Stores,
  say: (line: string) => void,
): Promise<Outcome> {
  await requireCore(options);
  const startedMs = performance.now();
  const world: World = await createWorld(stores.pool, config, options);
  const links = world.nodes.reduce((sum, node) => sum + node.members.length, 0);
  say(
    `created ${world.nodes.length} nodes, ${world.subscriptionIds.length} subscriptions and ` +
      `${links} memberships in ${((performance.now() - startedMs) / 1_000).toFixed(1)} s`,
  );
  const ledger: Ledger = createLedger();
  const latencyUs: RecordableHistogram = createHistogram();
  const { bodyEntriesMax } = config.http;
  const shared = { options, ledger, latencyUs, entriesMax: bodyEntriesMax };
  const agents = world.nodes.map((node) => createAgent(node, shared));
  for (const agent of agents) setMaxListeners(0, agent.stop.signal, agent.end.signal);
  const interrupted = untilSignalled();
  const stopProgress = startProgress(
    ledger,
    latencyUs,
    options.json ? process.stderr : process.stdout,
  );
  let ranSeconds: number;
  try {
    const { pool } = stores;
    const recode = async (nodeId: number): Promise<string> =>
      (await rekeyNode(pool, nodeId, config.nodes)).code;
    const registered = await registerAll(agents, recode, ledger, interrupted);
    const operator = new AbortController();
    const changes =
      options.changeEveryMs === 0
        ? 0
        : runOperator(
            pool,
            world.nodes,
            { everyMs: options.changeEveryMs, seed: options.seed },
            operator.signal,
          );
    ranSeconds = await runAgents(registered, options, interrupted);
    operator.abort();
    await changes;
  } finally {
    stopProgress();
  }
  say('agents stopped, waiting for Core to settle');
  const nodes = world.nodes.map((node) => node.nodeId);
  const settled = await untilSettled(stores, ledger, nodes, options.settleSeconds * 1_000);
  const found = await readFound(stores, { nodes, subscriptions: world.subscriptionIds });
  const comparison = compareStores(ledger, found, agents, world.subscriptionIds);
  return { ledger, latencyUs, settled, comparison, agents, ranSeconds };
}

async function main(): Promise<void> {
  const config = withStoredSecrets(readConfig(process.env));
  const options = readOptions(config);
  const lifecycle = new Lifecycle();
  try {
    const pool = createPool(config.stores.postgresUrl);
    lifecycle.use('postgres', () => pool.end());
    const clickhouse = createClickHouse(config.stores.clickhouseUrl);
    lifecycle.use('clickhouse', () => clickhouse.close());
    const say = (line: string): void => {
      (options.json ? process.stderr : process.stdout).write(`${line}\n`);
    };
    const outcome = await runFleet(config, options, { pool, clickhouse }, say);
    process.stdout.write(`${options.json ? reportJson(outcome) : reportText(outcome)}\n`);
    process.exitCode = isGood(outcome) ? 0 : 1;
  } finally {
    await lifecycle.close();
  }
}

main().catch((thrown: unknown) => {
  const { message, cause } = toCoreError(thrown);
  process.stderr.write(`fleet: ${cause instanceof Error ? cause.message : message}\n`);
  process.exitCode = 1;
});
