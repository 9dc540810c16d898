import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { findOrInstall } from '../../src/embedded/find-program.ts';
import { createLogger } from '../../src/log.ts';
import { projectRoot } from '../../src/root.ts';
import { until } from './api.ts';
import { freePorts } from './free-port.ts';
import { scratchFolder } from './scratch-folder.ts';

/** The host name in the files of deploy/proxy/. */
const serverName = 'core.example.net';
const run = promisify(execFile);
const startMsMax = 20_000;

/** The port of a running proxy, and the certificate that clients have to trust. */
export interface RunningProxy {
  port: number;
  certificate: string;
  /** What it has logged, the last 10,000 characters. */
  logged: () => string;
}

export interface ProxyReply {
  status: number;
  headers: NodeJS.Dict<string | string[]>;
  body: Buffer;
}

/** Debian's nginx with deploy/proxy/nginx.conf. Only paths and ports are changed. */
export async function startNginx(t: Test, corePort: number): Promise<RunningProxy> {
  const folder = scratchFolder(t);
  const { certificateFile, keyFile, certificate } = await makeServerCertificate(folder);
  const [port = 0] = await freePorts(1);
  const file = replaced(path.join('deploy', 'proxy', 'nginx.conf'), {
    'server 127.0.0.1:8080;': `server 127.0.0.1:${corePort};`,
    'listen 443 ssl;': `listen 127.0.0.1:${port} ssl;`,
    'listen [::]:443 ssl;': '',
    '/etc/letsencrypt/live/core.example.net/fullchain.pem': certificateFile,
    '/etc/letsencrypt/live/core.example.net/privkey.pem': keyFile,
  });
  const logged = await runNginx(t, { folder, port, servers: file });
  return { port, certificate, logged };
}

/** nginx in front of Core, with `proxy_pass` and nothing else. Returns its port. */
export async function startPlainNginx(t: Test, corePort: number): Promise<number> {
  const [port = 0] = await freePorts(1);
  const servers = `server {
    listen 127.0.0.1:${port};
    location / { proxy_pass http://127.0.0.1:${corePort}; }
  }`;
  await runNginx(t, { folder: scratchFolder(t), port, servers });
  return port;
}

/** Debian's Caddy with deploy/proxy/Caddyfile unchanged. The environment has ports and certificate. */
export async function startCaddy(t: Test, corePort: number): Promise<RunningProxy> {
  const folder = scratchFolder(t);
  const { certificateFile, keyFile, certificate } = await makeServerCertificate(folder);
  const [port = 0, httpPort, adminPort] = await freePorts(3);
  const logged = await runProgram(t, {
    program: await programOf('caddy'),
    args: ['run', '--adapter', 'caddyfile', '--config', deployed('Caddyfile')],
    environment: {
      HOME: folder,
      XDG_CONFIG_HOME: folder,
      XDG_DATA_HOME: folder,
      TLS: `tls ${certificateFile} ${keyFile}`,
      HTTPS_PORT: String(port),
      HTTP_PORT: String(httpPort),
      CADDY_ADMIN: `localhost:${adminPort}`,
      CORE_UPSTREAM: `127.0.0.1:${corePort}`,
    },
    port,
  });
  return { port, certificate, logged };
}

/** Keep-alive connections to a proxy from an address of this machine. */
export function connectionsTo(proxy: RunningProxy, localAddress = '127.0.0.1'): https.Agent {
  return new https.Agent({
    keepAlive: true,
    maxSockets: 4,
    ca: proxy.certificate,
    servername: serverName,
    localAddress,
  });
}

/** Sends one request through a proxy. If the body is an array, each element is sent as one chunk. */
export async function sendThrough(
  proxy: RunningProxy,
  agent: https.Agent,
  method: string,
  target: string,
  options: { headers?: Record<string, string>; body?: string | Buffer | readonly string[] } = {},
): Promise<ProxyReply> {
  const { headers = {}, body } = options;
  const request = https.request({
    method,
    host: '127.0.0.1',
    port: proxy.port,
    path: target,
    agent,
    headers: { host: serverName, 'content-type': 'application/json', ...headers },
  });
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>;
  if (typeof body === 'object' && !Buffer.isBuffer(body)) {
    for (const chunk of body) request.write(chunk);
    request.end();
  } else request.end(body);
  const [response] = await answered;
  const { statusCode: status = 0 } = response;
  return { status, headers: response.headers, body: await buffer(response) };
}

function deployed(name: string): string {
  return path.join(projectRoot, 'deploy', 'proxy', name);
}

/** The text of a project's file with each text replaced. Throws if the file lacks one of them. */
function replaced(file: string, changes: Readonly<Record<string, string>>): string {
  let text = readFileSync(path.join(projectRoot, file), 'utf8');
  for (const [from, to] of Object.entries(changes)) {
    if (!text.includes(from)) throw new Error(`${file} does not have ${JSON.stringify(from)}`);
    text = text.replace(from, to);
  }
  return text;
}

async function makeServerCertificate(folder: string) {
  const certificateFile = path.join(folder, 'certificate.pem');
  const keyFile = path.join(folder, 'key.pem');
  await run('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-keyout', keyFile, '-out', certificateFile, '-days', '2'],
    ...['-subj', `/CN=${serverName}`, '-addext', `subjectAltName=DNS:${serverName}`],
  ]);
  return { certificateFile, keyFile, certificate: readFileSync(certificateFile, 'utf8') };
}

/** Runs `servers` like a file in Debian's conf.d, but as any user and within one folder. */
async function runNginx(
  t: Test,
  { folder, port, servers }: { folder: string; port: number; servers: string },
): Promise<() => string> {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => {
    mkdirSync(path.join(folder, kind));
    return `${kind}_temp_path ${path.join(folder, kind)};`;
  });
  const file = path.join(folder, 'nginx.conf');
  // The workers of root's nginx would otherwise run as a user who may not enter this folder.
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  writeFileSync(
    file,
    `${user} daemon off; pid ${path.join(folder, 'pid')}; error_log stderr warn;
    events {} http { access_log off; ${temporary.join(' ')} ${servers} }`,
  );
  const program = await programOf('nginx');
  const args = ['-p', folder, '-e', 'stderr', '-c', file];
  return runProgram(t, { program, args, environment: {}, port });
}

async function programOf(name: 'nginx' | 'caddy'): Promise<string> {
  const found = await findOrInstall(name, createLogger('warn'), AbortSignal.timeout(300_000));
  if ('remedy' in found) throw new Error(`${name} is missing: ${found.remedy}`);
  return found.path;
}

/** Starts a program, which the teardown ends. Resolves once it accepts connections. */
async function runProgram(
  t: Test,
  options: {
    program: string;
    args: readonly string[];
    environment: Record<string, string>;
    port: number;
  },
): Promise<() => string> {
  const { program, args, environment, port } = options;
  const child = spawn(program, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env['PATH'], ...environment },
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-10_000);
  });
  const exited = once(child, 'exit');
  t.teardown(async () => {
    child.kill('SIGTERM');
    await exited;
  });
  const failed = exited.then(() => {
    throw new Error(`${program} ended: ${said}`);
  });
  failed.catch(() => undefined);
  await Promise.race([
    until(
      () => isListening(port),
      (listening) => listening,
      startMsMax,
    ),
    failed,
  ]);
  return () => said;
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
