import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { connectionsOf } from '../../../src/client-apps/connection.ts';
import { shareLink } from '../../../src/client-apps/share-link.ts';
import { validateProtocolSettings } from '../../../src/protocols/settings.ts';
import { renderNodeConfig } from '../../../src/render/render.ts';
import { freePorts } from '../../support/free-port.ts';
import { encodeLinkRecords } from '../../support/link-records.ts';
import { awaitListening, makeAuthority } from './local-proxy.ts';

// Flow vision: Xray counts the bytes of a download while it runs, if splicing is off, and only at its end
// otherwise. The site holds a download open at a known place, so nothing depends on how fast it is.

const execute = promisify(execFile);
const uuid = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11';
const bytesHeld = 20_000_000;
const greetingBytes = 100;
const settleMsMax = 10_000;

export interface VisionOutcome {
  splice: boolean;
  /** Bytes that had come to the client while the download was held, and those that Xray had counted. */
  came: number;
  counted: number;
}

/**
 * Downloads through a server with vision, once with splicing and once without. Xray also gets the rendered
 * `env` in its environment, as agents start an Xray that is too old to read it.
 */
export async function runVision(
  xrayPath: string,
  log: (line: string) => void,
): Promise<VisionOutcome[]> {
  const outcomes: VisionOutcome[] = [];
  for (const splice of [true, false]) {
    const outcome = await download(xrayPath, splice);
    log(`splice ${splice}: ${outcome.counted} of ${outcome.came} bytes counted during a download`);
    outcomes.push(outcome);
  }
  return outcomes;
}

async function download(xrayPath: string, splice: boolean): Promise<VisionOutcome> {
  const folder = mkdtempSync(path.join(tmpdir(), 'core-vision-'));
  const children: ReturnType<typeof spawn>[] = [];
  const authority = await makeAuthority(folder);
  let sendRest = (): unknown => undefined;
  const site = https.createServer(
    {
      minVersion: 'TLSv1.3',
      key: readFileSync(authority.keyFile),
      cert: readFileSync(authority.certificateFile),
    },
    // The answer does not end: the connection stays open until curl is stopped. Vision goes over to copying
    // at a read that is whole TLS records, so the rest waits until a greeting of one record has come through.
    (_, response) => {
      response.write(Buffer.alloc(greetingBytes, 7));
      sendRest = () => response.write(Buffer.alloc(bytesHeld - greetingBytes, 7));
    },
  );
  const start = (name: string, program: string, args: string[], environment: object): void => {
    const env = { PATH: process.env['PATH'], ...environment };
    const child = spawn(program, args, { env, stdio: 'ignore' });
    child.on('error', (cause) => {
      throw new Error(`${name} does not start`, { cause });
    });
    children.push(child);
  };
  try {
    site.listen(0, '127.0.0.1');
    await once(site, 'listening');
    const [port = 0, socksPort = 0] = await freePorts(2);
    const { certificateFile, keyFile, authorityFile } = authority;
    const settings = validateProtocolSettings('VLESS', {
      security: 'tls',
      tls: { certificateFile, keyFile, serverName: 'localhost' },
      flow: 'xtls-rprx-vision',
      splice,
    });
    const { config, apiAddress, environment } = serverConfig(port, settings);
    const place = { credential: uuid, host: 'localhost', port, name: 'vision' };
    const link = shareLink(connectionsOf('VLESS', settings, place)[0]);
    const files = { server: path.join(folder, 'server.json'), client: path.join(folder, 'c.json') };
    writeFileSync(files.server, JSON.stringify(config));
    writeFileSync(files.client, JSON.stringify(clientConfig(link, socksPort)));
    start('the server', xrayPath, ['run', '-c', files.server], environment);
    start('the client', xrayPath, ['run', '-c', files.client], { SSL_CERT_FILE: authorityFile });
    for (const awaited of [port, socksPort]) await awaitListening(awaited);
    const url = `https://localhost:${(site.address() as AddressInfo).port}/`;
    const proxy = ['-x', `socks5h://127.0.0.1:${socksPort}`, '--cacert', authorityFile];
    const curl = spawn('curl', ['-sS', '-N', '--tlsv1.3', ...proxy, url], { stdio: 'pipe' });
    children.push(curl);
    let came = 0;
    curl.stdout.on('data', (chunk: Buffer) => {
      came += chunk.length;
      if (came === greetingBytes) sendRest();
    });
    await within(settleMsMax, async () => came >= bytesHeld);
    let counted = 0;
    await within(settleMsMax / 5, async () => {
      counted = await countedBy(xrayPath, apiAddress);
      return counted >= bytesHeld;
    });
    return { splice, came, counted };
  } finally {
    for (const child of children) {
      const exited = child.exitCode === null ? once(child, 'exit') : undefined;
      child.kill('SIGKILL');
      await exited;
    }
    site.closeAllConnections();
    site.close();
    rmSync(folder, { recursive: true });
  }
}

/** Asks until something is so, or the time is over. */
async function within(msMax: number, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + msMax;
  while (!(await isSo()) && Date.now() < deadline) await setTimeout(50);
}

async function countedBy(xrayPath: string, apiAddress: string): Promise<number> {
  // The name in the counter is the UUID of the link, and there is one link.
  const args = ['api', 'statsquery', '-s', apiAddress, '-pattern', 'user>>>'];
  const { stdout } = await execute(xrayPath, args);
  const { stat = [] } = JSON.parse(stdout) as { stat?: { name: string; value?: number }[] };
  return stat.find(({ name }) => name.endsWith('>>>downlink'))?.value ?? 0;
}

function serverConfig(
  port: number,
  settings: Record<string, unknown>,
): { config: object; apiAddress: string; environment: Record<string, string> } {
  const config = renderNodeConfig({
    node: { id: 1, host: 'localhost', ip: '', revision: 1 },
    protocols: [{ id: 1, protocol: 'VLESS', port, settings }],
    // Xray from 26.7 on lets nobody reach the site, which has a private address, unless told to.
    outbounds: [
      {
        tag: 'direct',
        protocol: 'freedom',
        settings: { finalRules: [{ action: 'allow' }] },
        position: 1,
      },
    ],
    rules: [],
    links: encodeLinkRecords([
      { credential: uuid, nodeProtocolId: 1, userId: 1, subscriptionId: 1 },
    ]),
  });
  const { xray } = config.services;
  if (xray === undefined) throw new Error('the node serves nothing');
  const environment = Object.entries(xray.env ?? {}).map(([name, value]) => {
    return [name.replaceAll('.', '_').toUpperCase(), value];
  });
  return {
    config: xray,
    apiAddress: xray.api.listen,
    environment: Object.fromEntries(environment) as Record<string, string>,
  };
}

function clientConfig(link: string, socksPort: number): object {
  const { hostname, port, username, searchParams: query } = new URL(link);
  return {
    log: { loglevel: 'warning' },
    inbounds: [{ listen: '127.0.0.1', port: socksPort, protocol: 'socks' }],
    outbounds: [
      {
        protocol: 'vless',
        settings: {
          vnext: [
            {
              address: hostname,
              port: Number(port),
              users: [{ id: username, encryption: 'none', flow: query.get('flow') }],
            },
          ],
        },
        streamSettings: {
          network: 'raw',
          security: query.get('security'),
          tlsSettings: { serverName: query.get('sni'), fingerprint: query.get('fp') },
        },
      },
    ],
  };
}
