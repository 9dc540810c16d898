import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type {
  NodeConfig,
  XrayInbound,
  XrayServiceConfig,
} from '../../../src/contract/node-config.ts';
import { until } from '../../support/api.ts';
import { type Child, runToEnd, startChild } from './child.ts';
import type { Program } from './programs.ts';

/** Bytes by the UUID of a link, as Xray has counted them. */
export type Counters = ReadonlyMap<string, { up: number; down: number }>;

/** A node as its agent sees it: what Core tells it, and the Xray that runs it. */
export interface DrivenNode {
  nodeId: number;
  /** Asks for the newest configuration at each heartbeat until it is one that is waited for. */
  pull(isAwaited: (config: NodeConfig) => boolean): Promise<NodeConfig>;
  /**
   * Asks Xray whether it takes each inbound and the rest, each alone. Returns what it printed of those that
   * it refuses, by tag.
   */
  refusedInbounds(config: NodeConfig): Promise<Map<string, string>>;
  /** Restarts Xray with the configuration, without these inbounds, and reports it as applied. */
  apply(config: NodeConfig, without: ReadonlySet<string>): Promise<void>;
  counters(): Promise<Counters>;
  /** Posts what Xray has counted since the last post. */
  report(): Promise<Counters>;
  log(): string;
  stop(): Promise<void>;
}

const waitMsMax = 60_000;

/** Registers over HTTP with the code, as an agent does at its first start. */
export async function startNode(options: {
  coreUrl: string;
  code: string;
  name: string;
  xray: Program;
  folder: string;
  authorityFile: string;
  /** Where Xray's api is to answer, on loopback. */
  apiPort: number;
}): Promise<DrivenNode> {
  const { xray, folder, apiPort } = options;
  const send = connectTo(options.coreUrl);
  const { nodeId, authKey } = await send<{ nodeId: number; authKey: string }>('POST', 'register', {
    body: { code: options.code, name: options.name, host: '', ip: '127.0.0.1', region: 'eu' },
  });
  const environment = { SSL_CERT_FILE: options.authorityFile };
  let running: Child | undefined;
  let config: NodeConfig | undefined;
  /** What was posted, and of it what ended Xrays had counted. */
  const posted = new Map<string, { up: number; down: number }>();
  const heartbeat = () =>
    send<{ needSync: boolean }>('POST', 'heartbeat', {
      authKey,
      body: {
        ...(config === undefined ? {} : { revision: config.revision }),
        versions: { agent: 'conformance', xray: xray.version },
      },
    });
  const readCounters = async (): Promise<Counters> => {
    const args = ['api', 'statsquery', `--server=127.0.0.1:${apiPort}`, '-pattern', 'user>>>'];
    const said = await runToEnd(xray.file, args);
    if (!said.ok) throw new Error(`the counters cannot be read: ${said.output}`);
    return countersOf(said.output);
  };
  return {
    nodeId,
    async pull(isAwaited) {
      const ask = async (): Promise<NodeConfig | undefined> => {
        const { needSync } = await heartbeat();
        return needSync ? send<NodeConfig>('GET', 'config/latest', { authKey }) : undefined;
      };
      const found = await until(ask, (given) => given !== undefined && isAwaited(given), waitMsMax);
      return found as NodeConfig;
    },
    refusedInbounds: (given) => findRefused(given, { xray, folder, environment }),
    async apply(given, without) {
      await running?.stop();
      posted.clear();
      const service = serviceOf(given);
      const inbounds = service.inbounds.filter(({ tag }) => !without.has(tag));
      const file = path.join(folder, 'server.json');
      writeFileSync(file, serverText({ ...service, inbounds }, apiPort));
      running = await startChild({
        file: xray.file,
        args: ['run', '-c', file],
        ready: apiPort,
        logFile: path.join(folder, 'server.log'),
        environment: { ...environment, ...environmentOf(service) },
      });
      config = given;
      await send('POST', 'config/applied', { authKey, body: { revision: given.revision } });
    },
    counters: readCounters,
    async report() {
      const counters = await readCounters();
      const entries = usageEntries(config as NodeConfig, counters, posted);
      await send('POST', 'usage', { authKey, body: { entries }, key: randomUUID() });
      for (const [uuid, bytes] of counters) posted.set(uuid, bytes);
      return counters;
    },
    log: () => running?.log() ?? '',
    stop: async () => running?.stop(),
  };
}

function connectTo(coreUrl: string) {
  return async <T>(
    method: 'GET' | 'POST',
    route: string,
    given: { authKey?: string; body?: unknown; key?: string },
  ): Promise<T> => {
    const { authKey, body, key } = given;
    const response = await fetch(`${coreUrl}/node/${route}`, {
      method,
      headers: {
        ...(authKey === undefined ? {} : { 'x-node-auth-key': authKey }),
        ...(key === undefined ? {} : { 'idempotency-key': key }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${route} answered ${response.status}: ${text}`);
    return JSON.parse(text) as T;
  };
}

/** What moved since the last post, as entries of a post. */
function usageEntries(
  config: NodeConfig,
  counters: Counters,
  posted: Counters,
): Record<string, unknown>[] {
  const protocolOf = new Map(
    serviceOf(config).inbounds.flatMap((inbound) =>
      clientsOf(inbound).map(({ email }) => [email, Number(inbound.tag.slice('in-'.length))]),
    ),
  );
  return [...counters].flatMap(([uuid, { up, down }]) => {
    const before = posted.get(uuid) ?? { up: 0, down: 0 };
    const [bytesUp, bytesDown] = [up - before.up, down - before.down];
    const owner = config.clientMap[uuid];
    if (owner === undefined) throw new Error(`Xray counts for ${uuid}, which no link has`);
    if (bytesUp === 0 && bytesDown === 0) return [];
    const nodeProtocolId = protocolOf.get(uuid);
    return [{ ...owner, nodeProtocolId, bytesUp, bytesDown, recordedAt: new Date().toISOString() }];
  });
}

function clientsOf(inbound: XrayInbound): { email: string }[] {
  return inbound.settings.clients;
}

function serviceOf(config: NodeConfig): XrayServiceConfig {
  const { xray } = config.services;
  if (xray === undefined) throw new Error('the configuration has no Xray');
  return xray;
}

/**
 * Xray reads `env` of its configuration from 26.7.11 on, and an older one the same from its environment. So
 * an agent sets both.
 */
function environmentOf(service: XrayServiceConfig & { env?: Record<string, string> }) {
  return Object.fromEntries(
    Object.entries(service.env ?? {}).map(([name, value]) => [
      name.toUpperCase().replaceAll('.', '_'),
      value,
    ]),
  );
}

/** The service as a file for Xray, with its api on a free port and with a log. */
function serverText(service: XrayServiceConfig, apiPort: number): string {
  const api = { ...service.api, listen: `127.0.0.1:${apiPort}` };
  return JSON.stringify({ log: { loglevel: 'info' }, ...service, api });
}

async function findRefused(
  config: NodeConfig,
  of: { xray: Program; folder: string; environment: Record<string, string> },
): Promise<Map<string, string>> {
  const service = serviceOf(config);
  const refused = new Map<string, string>();
  const waiting = [...service.inbounds];
  const next = async (): Promise<void> => {
    for (let inbound = waiting.pop(); inbound !== undefined; inbound = waiting.pop()) {
      const file = path.join(of.folder, `test-${inbound.tag}.json`);
      writeFileSync(file, serverText({ ...service, inbounds: [inbound] }, 10_085));
      const tested = await runToEnd(of.xray.file, ['run', '-test', '-c', file], of.environment);
      if (!tested.ok) refused.set(inbound.tag, tested.output.trim());
    }
  };
  await Promise.all([next(), next()]);
  return refused;
}

function countersOf(text: string): Counters {
  const { stat = [] } = JSON.parse(text) as { stat?: { name: string; value?: number | string }[] };
  const counters = new Map<string, { up: number; down: number }>();
  for (const { name, value = 0 } of stat) {
    const [, uuid = '', , direction] = name.split('>>>');
    if (direction !== 'uplink' && direction !== 'downlink') continue;
    const bytes = counters.get(uuid) ?? { up: 0, down: 0 };
    bytes[direction === 'uplink' ? 'up' : 'down'] += Number(value);
    counters.set(uuid, bytes);
  }
  return counters;
}
