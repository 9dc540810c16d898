import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';

/** A share link, and the SOCKS port whose traffic takes it. */
export interface XrayClientLink {
  tag: string;
  socksPort: number;
  uri: string;
}

type JsonObject = Record<string, unknown>;

/**
 * Runs Xray as a client with a SOCKS inbound for each share link. It knows of a link what is in the URI.
 * The teardown stops it.
 * @param certificateFile trusted as a CA, because the test's certificate is self-signed.
 */
export async function startXrayClient(
  t: Test,
  folder: string,
  options: { xray: string; certificateFile: string; links: readonly XrayClientLink[] },
): Promise<void> {
  const { xray, certificateFile, links } = options;
  const file = path.join(folder, `client-${links[0]?.tag ?? ''}.json`);
  writeFileSync(
    file,
    JSON.stringify({
      log: { loglevel: 'info', access: 'none' },
      inbounds: links.map((link) => ({
        tag: `socks-${link.tag}`,
        listen: '127.0.0.1',
        port: link.socksPort,
        protocol: 'socks',
        settings: { auth: 'noauth', udp: false },
      })),
      outbounds: links.map(({ tag, uri }) => ({ tag: `out-${tag}`, ...outboundOf(uri) })),
      routing: {
        rules: links.map(({ tag }) => ({
          type: 'field',
          inboundTag: [`socks-${tag}`],
          outboundTag: `out-${tag}`,
        })),
      },
    }),
  );
  const client = spawn(xray, ['run', '-c', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, SSL_CERT_FILE: certificateFile },
  });
  const exited = once(client, 'exit');
  t.teardown(async () => {
    client.kill('SIGKILL');
    await exited;
  });
  await started(t, client);
}

/** Lines of a client's log that a test shows at its end. */
const linesShownMax = 20;

function started(t: Test, client: ChildProcess): Promise<void> {
  const said: string[] = [];
  t.teardown(() => {
    for (const line of said.slice(-linesShownMax)) t.comment(`client: ${line}`);
  });
  return new Promise((resolve, reject) => {
    if (client.stdout === null) throw new Error('the client has no output');
    createInterface({ input: client.stdout }).on('line', (line) => {
      said.push(line);
      if (said.length > 10 * linesShownMax) said.shift();
      if (/Xray [\d.]+ started/.test(line)) resolve();
    });
    client.once('exit', () => {
      reject(new Error(`the Xray client did not start: ${said.join('\n')}`));
    });
  });
}

/**
 * The outbound that a share link describes: VLESS and Trojan over TCP or WebSocket, Shadowsocks 2022 and
 * Hysteria2. https://github.com/XTLS/Xray-core/discussions/716
 * @throws Error for anything else in the link.
 */
function outboundOf(uri: string): JsonObject {
  const url = new URL(uri);
  const address = url.hostname.replace(/^\[|\]$/g, '');
  const port = Number(url.port);
  const user = decodeURIComponent(url.username);
  const query = url.searchParams;
  switch (url.protocol) {
    case 'vless:': {
      const flow = query.get('flow') ?? '';
      const users = [{ id: user, encryption: query.get('encryption'), flow }];
      return {
        protocol: 'vless',
        settings: { vnext: [{ address, port, users }] },
        streamSettings: streamOf(query),
      };
    }
    case 'trojan:':
      return {
        protocol: 'trojan',
        settings: { servers: [{ address, port, password: user }] },
        streamSettings: streamOf(query),
      };
    case 'ss:': {
      const password = decodeURIComponent(url.password);
      return {
        protocol: 'shadowsocks',
        settings: { servers: [{ address, port, method: user, password }] },
      };
    }
    case 'hysteria2:':
      return {
        protocol: 'hysteria',
        settings: { version: 2, address, port },
        streamSettings: {
          network: 'hysteria',
          security: 'tls',
          hysteriaSettings: { version: 2, auth: user },
          tlsSettings: { serverName: query.get('sni'), alpn: ['h3'] },
        },
      };
    default:
      throw new Error(`${url.protocol} is no share link that this client takes`);
  }
}

function streamOf(query: URLSearchParams): JsonObject {
  const network = query.get('type');
  const security = query.get('security');
  const tlsSettings = { serverName: query.get('sni'), fingerprint: query.get('fp') };
  if (network !== 'tcp' && network !== 'ws') throw new Error(`this client has no type ${network}`);
  return {
    network: network === 'tcp' ? 'raw' : network,
    security,
    ...(security === 'tls' ? { tlsSettings } : {}),
    ...(network === 'ws' ? { wsSettings: { path: query.get('path') } } : {}),
  };
}
