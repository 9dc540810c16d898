import { mkdirSync, rmSync, statfsSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { readJson, writeDurable } from '../../src/durable-file.ts';
import { createClient, describe } from './client.ts';
import { skewMsMax } from './clock.ts';
import { openConfigStore } from './config-store.ts';
import { canCut } from './end-sessions.ts';
import type { Identity } from './identity.ts';
import { createProxyRunner, fileOf, type RunningProxy, versionOf } from './proxy.ts';
import type { Settings } from './settings.ts';
import { openXrayApi } from './xray-api.ts';
import { apiPortOf } from './xray-config.ts';

/** One thing that was looked at. `fault` keeps the agent from working; `warning` costs something. */
export interface Finding {
  level: 'ok' | 'warning' | 'fault';
  text: string;
}

/** The first Xray that this agent was run on with all of its protocols. */
const xrayMin = [26, 3, 27];
/** The first Xray with users of Hysteria2 in its counters. */
const hysteriaMin = [26, 4, 13];
const answerMsMax = 10_000;
/** What the users of a busy node make in one reading. */
const postBytes = 1_048_576;

/**
 * Looks at everything that the agent needs, and changes nothing but that the data directory exists
 * afterwards. It asks Core for the configuration, which is no heartbeat.
 */
export async function checkMachine(settings: Settings): Promise<Finding[]> {
  return [
    await xrayFinding(settings.xray),
    ...folderFindings(settings),
    cutFinding(),
    ...(await coreFindings(settings)),
    ...(await portFindings(settings)),
  ];
}

async function xrayFinding(program: string): Promise<Finding> {
  if (fileOf(program) === undefined) {
    return fault(`no program ${program}: install Xray-core, or name its path with --xray`);
  }
  try {
    const version = await versionOf(program);
    const parts = version.split('.').map(Number);
    const text = `Xray ${version} (${fileOf(program)})`;
    if (isBefore(parts, xrayMin)) {
      return fault(`${text} is too old: install ${xrayMin.join('.')} or a later version`);
    }
    if (!isBefore(parts, hysteriaMin)) return ok(text);
    return warning(`${text}: before ${hysteriaMin.join('.')} it does not count users of Hysteria2`);
  } catch (thrown) {
    return fault(`${program} does not run: ${describe(thrown)}`);
  }
}

function isBefore(version: readonly number[], min: readonly number[]): boolean {
  const at = min.findIndex((part, index) => part !== version[index]);
  return at !== -1 && (version[at] ?? 0) < (min[at] as number);
}

/**
 * Writes a file as large as a post in each folder, as the agent does, and removes it. The right to write is not
 * enough: the disk may be full, or mounted for reading only.
 */
function folderFindings({ dataDir, spoolBytesMax }: Settings): Finding[] {
  const folders = ['', 'spool', 'refused', 'configs', 'proxy'].map((name) =>
    path.join(dataDir, name),
  );
  for (const folder of folders) {
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      const file = path.join(folder, `check-${process.pid}`);
      writeDurable(file, ' '.repeat(postBytes));
      rmSync(file);
    } catch (thrown) {
      return [fault(`the folder ${folder} cannot be written to: ${describe(thrown)}`)];
    }
  }
  const writable = ok(`the data directory ${dataDir} is writable`);
  const { bavail, bsize } = statfsSync(dataDir);
  if (bavail * bsize >= spoolBytesMax) return [writable];
  const [free, wanted] = [bavail * bsize, spoolBytesMax].map((bytes) => Math.round(bytes / 1e6));
  const text = `${free} MB are free for ${dataDir}, and stored posts may take ${wanted} MB`;
  return [writable, warning(`${text}: make room, or lower --spool-bytes-max`)];
}

function cutFinding(): Finding {
  if (fileOf('ss') === undefined) {
    return warning('no program ss (iproute2): sessions of removed users end by restarting Xray');
  }
  if (canCut()) return ok('sessions of removed users can be cut one by one');
  return warning('no CAP_NET_ADMIN: sessions of removed users end by restarting Xray');
}

async function coreFindings({ url, dataDir, code }: Settings): Promise<Finding[]> {
  const origin = new URL(url).origin;
  const signal = AbortSignal.timeout(answerMsMax);
  let date: string | null;
  try {
    // A proxy in front may know no such path. Its answer has a date all the same.
    const response = await fetch(new URL('/healthz', url), { signal });
    date = response.headers.get('date');
  } catch (thrown) {
    return [
      fault(`${origin} does not answer: ${describe(thrown)}. Check --url, and that Core runs`),
    ];
  }
  const findings = [ok(`${origin} answers`), ...skewFindings(date)];
  const identity = readJson<Identity>(path.join(dataDir, 'identity.json'));
  if (identity === undefined) {
    const isNew = code !== undefined;
    const text = 'not registered yet: start with --code and the code of core node create';
    return [...findings, isNew ? ok('not registered yet; there is a code') : fault(text)];
  }
  const options = { url, timeoutMs: answerMsMax, backOffMsMax: 0, signal };
  const answer = await createClient(options, identity.authKey).config(undefined);
  if (answer.kind === 'ok') {
    return [...findings, ok(`the key of node ${identity.nodeId} is valid`)];
  }
  if (answer.kind !== 'refused') return [...findings, warning('the key could not be checked')];
  const advice = 'get a new code with core node rekey, and remove identity.json';
  return [...findings, fault(`Core refuses the key: ${answer.code} ${answer.message}; ${advice}`)];
}

function skewFindings(date: string | null): Finding[] {
  const coreMs = Date.parse(date ?? '');
  if (Number.isNaN(coreMs)) {
    return [warning(`the clock was not compared: the answer has the date ${date}`)];
  }
  const skewMs = Date.now() - coreMs;
  if (Math.abs(skewMs) <= skewMsMax) return [ok('the clock agrees with that of Core')];
  const seconds = Math.round(skewMs / 1_000);
  return [fault(`the clock is ${seconds} s off from that of Core: set it, for instance by NTP`)];
}

/** Counters and users go through the API of the running Xray. */
async function apiFinding({ pid }: RunningProxy, port: number): Promise<Finding> {
  const api = openXrayApi(port);
  try {
    await api.uptimeSeconds();
    return ok(`Xray runs as process ${pid}, and its API answers`);
  } catch (thrown) {
    const text = `Xray runs as process ${pid}, and its API on port ${port} does not answer`;
    return fault(`${text}: ${describe(thrown)}; stop that process, and the agent starts another`);
  } finally {
    api.close();
  }
}

/** The ports of the stored configuration are free, unless this agent's own proxy has them. */
async function portFindings({ dataDir, apiPort }: Settings): Promise<Finding[]> {
  try {
    const configs = openConfigStore(dataDir);
    const current = configs.current();
    if (current === undefined) return [];
    const { xray } = configs.read(current.revision);
    const running = createProxyRunner({ program: '', dataDir }).adopt();
    if (running !== undefined) return [await apiFinding(running, apiPort ?? apiPortOf(xray))];
    const { inbounds } = xray;
    const findings = inbounds.map(async (inbound) => {
      const [port, host] = [Number(inbound['port']), String(inbound['listen'])];
      const isUdp = inbound.protocol === 'hysteria';
      const reason = isUdp ? undefined : await whyTaken(port, host);
      if (reason === undefined) return [];
      return [fault(`port ${port} of ${inbound.tag} cannot be opened: ${reason}`)];
    });
    const api = await whyTaken(apiPort ?? apiPortOf(xray), '127.0.0.1');
    const taken = (await Promise.all(findings)).flat();
    if (api !== undefined) {
      taken.push(
        fault(`the port of Xray's API cannot be opened: ${api}; choose one by --api-port`),
      );
    }
    return taken.length > 0 ? taken : [ok('the ports of the stored configuration are free')];
  } catch (thrown) {
    return [fault(`the stored configuration cannot be read: ${describe(thrown)}`)];
  }
}

function whyTaken(port: number, host: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', (error) => resolve(error.message));
    server.listen({ port, host }, () => server.close(() => resolve(undefined)));
  });
}

const ok = (text: string): Finding => ({ level: 'ok', text });
const warning = (text: string): Finding => ({ level: 'warning', text });
const fault = (text: string): Finding => ({ level: 'fault', text });
