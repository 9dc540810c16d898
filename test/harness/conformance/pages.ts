import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { parse, stringify } from 'yaml';
import type { VpnProtocol } from '../../../src/contract/enums.ts';
import type { NodeConfig } from '../../../src/contract/node-config.ts';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import { until } from '../../support/api.ts';
import { freePorts } from '../../support/free-port.ts';
import { move } from '../../support/socks-traffic.ts';

/** A protocol as an operator adds it. It has to listen on 127.0.0.1. */
export interface PageCell {
  name: string;
  protocol: VpnProtocol;
  settings: Record<string, unknown>;
}

export interface PagesRun {
  core: {
    url: string;
    /** Runs `core …` and returns its JSON. Core serves pages. */
    command: <T>(...args: string[]) => Promise<T>;
  };
  /** The files of the programs. */
  xray: string;
  clients: { mihomo?: string; 'sing-box'?: string };
  cells: readonly PageCell[];
  /** What clients trust, so that the page alone says the rest. */
  authorityFile: string;
  folder: string;
  lifecycle: Lifecycle;
}

export type PageClient = keyof PagesRun['clients'];

/** What came of one cell with one client. */
export interface PageResult {
  cell: string;
  client: PageClient;
  outcome: 'passed' | 'left out' | { failed: string };
}

const bytes = { up: 200_000, down: 1_000_000 };
const readyMsMax = 30_000;
/** Newer versions of Xray send nothing to private addresses unless they are told so; the site has one. */
const toThisMachine = { finalRules: [{ action: 'allow', ip: ['127.0.0.0/8'] }], ipsBlocked: [] };
const moveMsMax = 20_000;
const parallelMoves = 8;

/**
 * Runs a node on Xray, fetches a subscription's page in the format of each client, and moves bytes through
 * every entry of it. To the page it adds an inbound for each entry, and nothing else: sing-box's own inbound
 * would take over the network of this machine.
 */
export async function runPages(run: PagesRun): Promise<PageResult[]> {
  const { command, url } = run.core;
  const { nodeId, code } = await command<{ nodeId: number; code: string }>(
    ...['node', 'create', '--name', 'pages'],
  );
  // Nothing else is in its group, so the page has the entries of this node only.
  const group = 'pages';
  await command('group', 'create', group);
  const ports = await freePorts(run.cells.length);
  for (const [index, { protocol, settings }] of run.cells.entries()) {
    const place = ['--protocol', protocol, '--port', String(ports[index])];
    const given = JSON.stringify({ listen: '127.0.0.1', ...settings });
    await command(
      'protocol',
      'add',
      '--node',
      String(nodeId),
      ...place,
      '--settings',
      given,
      '--groups',
      group,
    );
  }
  const { userId } = await command<{ userId: number }>('user', 'create', '--name', 'pages');
  const { subscriptionId } = await command<{ subscriptionId: number }>(
    ...['subscription', 'create', '--user', String(userId), '--groups', group],
  );
  const made = await command<{ url: string }>(
    ...['subscription', 'page', 'create', String(subscriptionId)],
  );
  const page = `${url}${new URL(made.url).pathname}`;
  await startXray(run, await registeredConfig(url, code, run.cells.length));
  const sitePort = await startSite(run.lifecycle);
  const results: PageResult[] = [];
  for (const client of ['mihomo', 'sing-box'] as const) {
    const file = run.clients[client];
    if (file === undefined) continue;
    const reply = await fetch(`${page}?format=${client}`);
    const text = await reply.text();
    if (reply.status !== 200) throw new Error(`the page answered ${reply.status}: ${text}`);
    const ways = await startClient(run, { client, file, text });
    // mihomo closes what comes before its tunnel runs, and does not say when it does.
    await untilOneMoves([...ways.values()], sitePort);
    const tryEntry = async ({ name }: PageCell, index: number): Promise<void> => {
      const socksPort = ways.get(ports[index] ?? 0);
      const outcome =
        socksPort === undefined
          ? 'left out'
          : await outcomeOf(move({ socksPort, sitePort }, bytes));
      results.push({ cell: name, client, outcome });
    };
    for (let at = 0; at < run.cells.length; at += parallelMoves) {
      const some = run.cells.slice(at, at + parallelMoves);
      await Promise.all(some.map((cell, index) => tryEntry(cell, at + index)));
    }
    const left = results.filter((one) => one.client === client && one.outcome === 'left out');
    const counted = Number(reply.headers.get('x-links-left-out') ?? '0');
    if (left.length !== counted) {
      throw new Error(`${client}: ${left.length} entries are missing, the header says ${counted}`);
    }
  }
  return results;
}

/** Resolves once an entry moves bytes, or after a while. The results say which do. */
async function untilOneMoves(socksPorts: readonly number[], sitePort: number): Promise<void> {
  const deadlineMs = performance.now() + moveMsMax;
  while (performance.now() < deadlineMs) {
    const outcomes = await Promise.all(
      socksPorts.map((socksPort) => outcomeOf(move({ socksPort, sitePort }, { up: 1, down: 1 }))),
    );
    if (outcomes.includes('passed')) return;
  }
}

async function outcomeOf(moved: Promise<void>): Promise<PageResult['outcome']> {
  try {
    await inTime(moved, moveMsMax, () => 'not all bytes came in time');
    return 'passed';
  } catch (thrown) {
    return { failed: (thrown as Error).message };
  }
}

/** Registers as a node does, and asks for its configuration until it has all users. */
async function registeredConfig(url: string, code: string, users: number): Promise<NodeConfig> {
  const body = { code, name: 'pages', host: '', ip: '127.0.0.1', region: 'eu' };
  const registered = await fetch(`${url}/node/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const { authKey } = (await registered.json()) as { authKey: string };
  const headers = { 'x-node-auth-key': authKey };
  const ask = async () =>
    (await (await fetch(`${url}/node/config/latest`, { headers })).json()) as NodeConfig;
  return until(ask, ({ clientMap }) => Object.keys(clientMap ?? {}).length === users, readyMsMax);
}

async function startXray(run: PagesRun, config: NodeConfig): Promise<void> {
  const { xray } = config.services;
  if (xray === undefined) throw new Error('the node has no Xray service');
  const [apiPort] = await freePorts(1);
  const file = path.join(run.folder, 'pages-server.json');
  writeFileSync(
    file,
    JSON.stringify({
      ...xray,
      outbounds: [{ tag: 'direct', protocol: 'freedom', settings: toThisMachine }],
      api: { ...xray.api, listen: `127.0.0.1:${apiPort}` },
    }),
  );
  await startProgram(run, { file: run.xray, args: ['run', '-c', file], ready: /Xray \S+ started/ });
}

/** Starts the client on the page. Returns the SOCKS port of each entry by the port of its server. */
async function startClient(
  run: PagesRun,
  { client, file, text }: { client: PageClient; file: string; text: string },
): Promise<Map<number, number>> {
  const own = path.join(run.folder, client);
  mkdirSync(own);
  const profile = path.join(own, client === 'mihomo' ? 'page.yaml' : 'page.json');
  // The program's own check sees the page as it is.
  writeFileSync(profile, text);
  const check = client === 'mihomo' ? ['-t', '-d', own, '-f', profile] : ['check', '-c', profile];
  await runToEnd(run, file, check);
  const given = client === 'mihomo' ? parse(text) : JSON.parse(text);
  const entries = entriesOf(client, given);
  const ports = await freePorts(entries.length + 1);
  const ways = new Map(entries.map((entry, index) => [entry.port, ports[index] ?? 0]));
  const asked =
    client === 'mihomo'
      ? withListeners(given, entries, ports)
      : withInbounds(given, entries, ports);
  writeFileSync(profile, client === 'mihomo' ? stringify(asked) : JSON.stringify(asked));
  await startProgram(run, {
    file,
    args: client === 'mihomo' ? ['-d', own, '-f', profile] : ['run', '-c', profile],
    ready: client === 'mihomo' ? /Start initial compatible provider/ : /sing-box started/,
    folder: own,
  });
  return ways;
}

interface Entry {
  name: string;
  port: number;
}

// biome-ignore lint/suspicious/noExplicitAny: the profile of another program.
function entriesOf(client: PageClient, given: any): Entry[] {
  if (client === 'mihomo') return given.proxies;
  return given.outbounds
    .filter((one: { server?: string }) => one.server !== undefined)
    .map((one: { tag: string; server_port: number }) => ({ name: one.tag, port: one.server_port }));
}

function withListeners(given: object, entries: readonly Entry[], ports: readonly number[]): object {
  return {
    ...given,
    // At the level of the page, mihomo does not say that it is ready.
    'log-level': 'info',
    'mixed-port': ports[entries.length],
    listeners: entries.map(({ name }, index) => ({
      name: `socks ${name}`,
      type: 'socks',
      listen: '127.0.0.1',
      port: ports[index],
      proxy: name,
    })),
  };
}

function withInbounds(
  // biome-ignore lint/suspicious/noExplicitAny: the profile of another program.
  given: any,
  entries: readonly Entry[],
  ports: readonly number[],
): object {
  return {
    ...given,
    log: { level: 'info' },
    inbounds: entries.map(({ name }, index) => ({
      type: 'socks',
      tag: `socks ${name}`,
      listen: '127.0.0.1',
      listen_port: ports[index],
    })),
    route: {
      ...given.route,
      rules: entries.map(({ name }) => ({
        inbound: [`socks ${name}`],
        action: 'route',
        outbound: name,
      })),
    },
  };
}

/** A site as socks-traffic.ts asks it. */
async function startSite(lifecycle: Lifecycle): Promise<number> {
  const site = http.createServer(async (request, response) => {
    await buffer(request);
    const down = Number(new URL(request.url ?? '', 'http://site').searchParams.get('down'));
    response.end(Buffer.alloc(down, 7));
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  lifecycle.use('site of the pages', () => {
    site.closeAllConnections();
    site.close();
  });
  return (site.address() as AddressInfo).port;
}

interface Started {
  file: string;
  args: readonly string[];
  folder?: string;
}

function environmentOf({ authorityFile, folder }: PagesRun): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'],
    HOME: folder,
    SSL_CERT_FILE: authorityFile,
    SSL_CERT_DIR: folder,
    DISABLE_EMBED_CA: '1',
  };
}

/** Starts a program that the lifecycle ends. Resolves once it says that it is ready. */
async function startProgram(run: PagesRun, started: Started & { ready: RegExp }): Promise<void> {
  const { file, args, folder = run.folder, ready } = started;
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: environmentOf(run),
    cwd: folder,
  });
  let said = '';
  const isReady = new Promise<void>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        said = (said + chunk.toString()).slice(-20_000);
        if (ready.test(said)) resolve();
      });
    }
  });
  const exited = once(child, 'exit');
  run.lifecycle.use(file, async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const ended = exited.then(() => {
    throw new Error(`${file} ended: ${said}`);
  });
  ended.catch(() => undefined);
  await inTime(Promise.race([isReady, ended]), readyMsMax, () => `${file} is not ready: ${said}`);
}

/** @throws Error with the message if it takes longer. */
async function inTime<T>(awaited: Promise<T>, msMax: number, message: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(message())), msMax);
  });
  try {
    return await Promise.race([awaited, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** @throws Error with what the program said, unless it ends well. */
async function runToEnd(run: PagesRun, file: string, args: readonly string[]): Promise<void> {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], env: environmentOf(run) });
  const said = Promise.all([buffer(child.stdout), buffer(child.stderr)]);
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`${file} ${args.join(' ')}: ${(await said).join('')}`);
}
