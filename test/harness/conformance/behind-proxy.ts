import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connectionsOf } from '../../../src/client-apps/connection.ts';
import { shareLink } from '../../../src/client-apps/share-link.ts';
import { validateProtocolSettings } from '../../../src/protocols/settings.ts';
import { renderNodeConfig } from '../../../src/render/render.ts';
import { freePorts } from '../../support/free-port.ts';
import { encodeLinkRecords } from '../../support/link-records.ts';
import { awaitListening, makeAuthority } from './local-proxy.ts';

// Protocols behind a proxy that ends TLS: nginx in front of Xray, and a client that knows the share link
// only. Shows that the links of such protocols work, and whose address Xray takes for the client's.

const uuid = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11';
const siteBytes = 300_000;
/** The address that nginx hands on. */
const forwarded = '203.0.113.9';

export interface ProxyOutcome {
  name: string;
  link: string;
  /** Bytes of the site that came through. */
  bytes: number;
  /** Whether that is the whole site. */
  isWhole: boolean;
  /** Whether the settings say that the address is to be taken from nginx. */
  isTrusted: boolean;
  /** Whose address Xray logged for the client, and the one that nginx handed on. */
  from: string;
  forwarded: string;
}

/** Runs each protocol behind nginx. Throws if a program does not start. */
export async function runBehindProxy(
  xrayPath: string,
  log: (line: string) => void,
): Promise<ProxyOutcome[]> {
  const folder = mkdtempSync(path.join(tmpdir(), 'core-proxy-'));
  const children: ChildProcess[] = [];
  const site = http.createServer((_, response) => response.end(Buffer.alloc(siteBytes, 7)));
  try {
    site.listen(0, '127.0.0.1');
    await once(site, 'listening');
    const outcomes: ProxyOutcome[] = [];
    for (const given of cases(folder)) {
      const world = { xrayPath, folder, children, sitePort: (site.address() as AddressInfo).port };
      const outcome = await runCase(world, given);
      log(`${outcome.name}: ${outcome.bytes} bytes, client ${outcome.from}: ${outcome.link}`);
      outcomes.push(outcome);
      await stop(children);
    }
    return outcomes;
  } finally {
    await stop(children);
    site.close();
    rmSync(folder, { recursive: true });
  }
}

interface Case {
  name: string;
  settings: Record<string, unknown>;
  /** Where nginx sends the requests. */
  upstream: (port: number) => string;
  path: string;
}

function cases(folder: string): Case[] {
  const socket = path.join(folder, 'ws.sock');
  const ws = { network: 'ws', ws: { path: '/p', host: 'cdn.example.com' } };
  const trusted = { sockopt: { trustedXForwardedFor: ['X-Forwarded-For'] } };
  const overTcp = (port: number): string => `http://127.0.0.1:${port}`;
  return [
    {
      name: 'ws on loopback',
      path: '/p',
      upstream: overTcp,
      settings: { listen: '127.0.0.1', ...ws },
    },
    {
      name: 'ws on a unix socket, trustedXForwardedFor',
      path: '/p',
      upstream: () => `http://unix:${socket}:`,
      settings: { listen: `${socket},0666`, ...ws, ...trusted },
    },
    {
      name: 'xhttp with extra, on loopback',
      path: '/x',
      upstream: overTcp,
      settings: {
        listen: '127.0.0.1',
        network: 'xhttp',
        xhttp: { path: '/x', extra: { xPaddingBytes: '200-300', xmux: { maxConnections: 2 } } },
        ...trusted,
      },
    },
  ];
}

interface World {
  xrayPath: string;
  folder: string;
  children: ChildProcess[];
  sitePort: number;
}

async function runCase(world: World, given: Case): Promise<ProxyOutcome> {
  const [port = 0, publicPort = 0, socksPort = 0] = await freePorts(3);
  const settings = validateProtocolSettings('VLESS', {
    ...given.settings,
    publicHost: 'localhost',
    publicPort,
  });
  const place = { credential: uuid, host: 'localhost', port: publicPort, name: given.name };
  const link = shareLink(connectionsOf('VLESS', settings, place)[0]);
  const authority = await makeAuthority(world.folder);
  const nginx = nginxFile(world.folder, publicPort, given.path, given.upstream(port), authority);
  const server = startXray(world, 'server', serverConfig(port, settings), {});
  run(world, 'nginx', ['-p', world.folder, '-e', 'stderr', '-c', nginx], {});
  const client = { SSL_CERT_FILE: authority.authorityFile };
  startXray(world, 'client', clientConfig(link, socksPort), client);
  for (const awaited of [publicPort, socksPort]) await awaitListening(awaited);
  const bytes = await fetched(world, socksPort);
  const from = /from (?:tcp:)?(\S+?):\d+ accepted/.exec(server.said)?.[1] ?? '';
  const isTrusted = 'sockopt' in given.settings;
  const isWhole = bytes === siteBytes;
  return { name: given.name, link, bytes, isWhole, isTrusted, from, forwarded };
}

/** What curl gets of the site through a SOCKS proxy, in bytes. 0 if nothing comes. */
async function fetched({ sitePort }: World, socksPort: number): Promise<number> {
  const url = `http://127.0.0.1:${sitePort}/`;
  const args = [
    '-sS',
    '-m',
    '20',
    '-x',
    `socks5h://127.0.0.1:${socksPort}`,
    url,
    '-o',
    '/dev/null',
  ];
  const curl = spawn('curl', [...args, '-w', '%{size_download}']);
  let said = '';
  curl.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  await once(curl, 'close');
  return Number(said);
}

function serverConfig(port: number, settings: Record<string, unknown>): object {
  const direct = { finalRules: [{ action: 'allow' }] };
  const config = renderNodeConfig({
    node: { id: 1, host: 'localhost', ip: '', revision: 1 },
    protocols: [{ id: 1, protocol: 'VLESS', port, settings }],
    // Xray from 26.7 on lets nobody reach the site, which has a private address, unless told to.
    outbounds: [{ tag: 'direct', protocol: 'freedom', settings: direct, position: 1 }],
    rules: [],
    links: encodeLinkRecords([
      { credential: uuid, nodeProtocolId: 1, userId: 1, subscriptionId: 1 },
    ]),
  });
  const { api, ...xray } = config.services.xray ?? {};
  return { ...xray, log: { loglevel: 'warning' } };
}

/** A client of what the link says, and of nothing else. */
function clientConfig(link: string, socksPort: number): object {
  const { hostname, port, username, searchParams: query } = new URL(link);
  const network = query.get('type') ?? '';
  const http = { path: query.get('path') ?? '/', host: query.get('host') ?? undefined };
  const extra = query.get('extra');
  const known = ['encryption', 'type', 'security', 'path', 'host', 'mode', 'extra', 'sni', 'fp'];
  const odd = [...query.keys()].filter((key) => !known.includes(key));
  if (odd.length > 0) throw new Error(`The link has fields that this client does not know: ${odd}`);
  return {
    log: { loglevel: 'warning' },
    inbounds: [{ listen: '127.0.0.1', port: socksPort, protocol: 'socks' }],
    outbounds: [
      {
        protocol: 'vless',
        settings: {
          address: hostname,
          port: Number(port),
          id: username,
          encryption: query.get('encryption'),
        },
        streamSettings: {
          network,
          security: query.get('security'),
          tlsSettings: { serverName: query.get('sni'), fingerprint: query.get('fp') },
          ...(network === 'ws' ? { wsSettings: http } : {}),
          ...(network === 'xhttp'
            ? {
                xhttpSettings: {
                  ...http,
                  mode: query.get('mode'),
                  ...(extra === null ? {} : { extra: JSON.parse(extra) }),
                },
              }
            : {}),
        },
      },
    ],
  };
}

/** A site of nginx as operators write it, which ends TLS and hands on one path. */
function nginxFile(
  folder: string,
  port: number,
  location: string,
  upstream: string,
  { certificateFile, keyFile }: { certificateFile: string; keyFile: string },
): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => {
    mkdirSync(path.join(folder, kind), { recursive: true });
    return `${kind}_temp_path ${path.join(folder, kind)};`;
  });
  const file = path.join(folder, 'nginx.conf');
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  writeFileSync(
    file,
    `${user} daemon off; pid ${path.join(folder, 'pid')}; error_log stderr warn;
    events {} http { access_log off; ${temporary.join(' ')} server {
      listen 127.0.0.1:${port} ssl http2;
      ssl_certificate ${certificateFile}; ssl_certificate_key ${keyFile};
      location ${location} {
        proxy_pass ${upstream}; proxy_http_version 1.1; proxy_buffering off;
        proxy_request_buffering off; client_max_body_size 0;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
        proxy_set_header Host $host; proxy_set_header X-Forwarded-For ${forwarded};
      }
    } }`,
  );
  return file;
}

function startXray(
  world: World,
  name: string,
  config: object,
  environment: Record<string, string>,
): { said: string } {
  const file = path.join(world.folder, `${name}.json`);
  writeFileSync(file, JSON.stringify(config));
  return run(world, world.xrayPath, ['run', '-c', file], environment);
}

function run(
  { children }: World,
  program: string,
  args: readonly string[],
  environment: Record<string, string>,
): { said: string } {
  const child = spawn(program, args, { env: { PATH: process.env['PATH'], ...environment } });
  children.push(child);
  const output = { said: '' };
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output.said = (output.said + chunk.toString()).slice(-20_000);
    });
  }
  return output;
}

async function stop(children: ChildProcess[]): Promise<void> {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    await exited;
  }
}
