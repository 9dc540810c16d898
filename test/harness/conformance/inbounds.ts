import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import type { VpnProtocol } from '../../../src/contract/enums.ts';
import { CoreError } from '../../../src/errors.ts';
import { validateProtocolSettings } from '../../../src/protocols/settings.ts';
import type { ProtocolRow } from '../../../src/render/node-rows.ts';
import { renderNodeConfig } from '../../../src/render/render.ts';
import { goldenCases } from '../../support/golden-cases.ts';
import { encodeLinkRecords } from '../../support/link-records.ts';

// Whatever settings Core takes, Xray takes what Core renders from them. The settings are random, and the
// golden cases are among them.

const execute = promisify(execFile);
const uuid = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11';
const portMin = 20_000;
/** Inbounds in one run of Xray. A run takes as long for many as for one. */
const batchLength = 50;

interface Given {
  protocol: VpnProtocol;
  settings: Record<string, unknown>;
}

export interface Refusal {
  protocol: VpnProtocol;
  settings: Record<string, unknown>;
  /** What Xray printed. */
  reason: string;
}

/**
 * Renders random settings that Core takes, and has Xray test them. Returns those that Xray refuses.
 * @param sample How many settings of each protocol; further ones are made until Core takes so many.
 * @param seed For the same settings again.
 */
export async function runInbounds(
  xrayPath: string,
  log: (line: string) => void,
  { sample = 200, seed = Date.now() }: { sample?: number; seed?: number } = {},
): Promise<Refusal[]> {
  const folder = mkdtempSync(path.join(tmpdir(), 'core-inbounds-'));
  try {
    const certificate = await makeCertificate(folder);
    const golden = goldenCases
      .filter(({ protocol }) => protocol !== 'MTPROTO')
      .map(({ protocol, settings }) => ({ protocol, settings: withFiles(settings, certificate) }));
    const random = protocols.flatMap((protocol) => accepted(protocol, certificate, sample, seed));
    log(`${golden.length} golden cases and ${random.length} random settings, seed ${seed}`);
    const refusals: Refusal[] = [];
    const all = [...golden, ...random];
    for (let at = 0; at < all.length; at += batchLength) {
      refusals.push(...(await refusalsOf(xrayPath, folder, all.slice(at, at + batchLength))));
    }
    for (const { protocol, settings, reason } of refusals) {
      log(`refused: ${protocol} ${JSON.stringify(settings)}: ${reason}`);
    }
    log(`Xray took ${all.length - refusals.length} of ${all.length}`);
    return refusals;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Halves a batch that Xray refuses until it is clear which settings are to blame. */
async function refusalsOf(
  xrayPath: string,
  folder: string,
  batch: readonly Given[],
): Promise<Refusal[]> {
  const reason = await reasonToRefuse(xrayPath, folder, batch);
  if (reason === undefined) return [];
  const [only] = batch;
  if (batch.length === 1 && only !== undefined) return [{ ...only, reason }];
  const half = Math.ceil(batch.length / 2);
  return [
    ...(await refusalsOf(xrayPath, folder, batch.slice(0, half))),
    ...(await refusalsOf(xrayPath, folder, batch.slice(half))),
  ];
}

async function reasonToRefuse(
  xrayPath: string,
  folder: string,
  batch: readonly Given[],
): Promise<string | undefined> {
  const file = path.join(folder, 'config.json');
  writeFileSync(file, JSON.stringify(configOf(batch)));
  try {
    await execute(xrayPath, ['run', '-test', '-c', file], { timeout: 60_000 });
    return undefined;
  } catch (thrown) {
    const { stdout = '', stderr = '' } = thrown as { stdout?: string; stderr?: string };
    const lines = `${stdout}${stderr}`.trim().split('\n');
    if (lines[0] === '') throw thrown;
    return lines.at(-1);
  }
}

/** The node configuration with all of a batch, as an agent hands it to Xray. */
function configOf(batch: readonly Given[]): object {
  const protocols = batch.map(
    ({ protocol, settings }, index): ProtocolRow => ({
      id: index + 1,
      protocol,
      port: portMin + index,
      settings: validateProtocolSettings(protocol, settings),
    }),
  );
  const config = renderNodeConfig({
    node: { id: 1, host: 'node.example.com', ip: '', revision: 1 },
    protocols,
    outbounds: [],
    rules: [],
    links: encodeLinkRecords(
      protocols.map(({ id }) => ({
        nodeProtocolId: id,
        userId: 1,
        subscriptionId: 1,
        credential: `${uuid.slice(0, -4)}${String(id).padStart(4, '0')}`,
      })),
    ),
  });
  return { ...config.services.xray };
}

interface Certificate {
  certificateFile: string;
  keyFile: string;
}

async function makeCertificate(folder: string): Promise<Certificate> {
  const [certificateFile, keyFile] = [path.join(folder, 'c.pem'), path.join(folder, 'k.pem')];
  await execute('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-keyout', keyFile, '-out', certificateFile, '-days', '2', '-subj', '/CN=vpn.example.com'],
  ]);
  return { certificateFile, keyFile };
}

function withFiles(settings: Record<string, unknown>, files: Certificate): Record<string, unknown> {
  const { tls } = settings;
  return typeof tls === 'object' ? { ...settings, tls: { ...tls, ...files } } : settings;
}

/** Random settings that Core takes. Throws if hardly any of the random ones are. */
function accepted(protocol: VpnProtocol, files: Certificate, count: number, seed: number): Given[] {
  const triesMax = 100 * count;
  const found: Given[] = [];
  for (const settings of fc.sample(settingsOf(protocol, files), { numRuns: triesMax, seed })) {
    if (found.length === count) break;
    const plain = JSON.parse(JSON.stringify(settings)) as Record<string, unknown>;
    if (isTaken(protocol, plain)) found.push({ protocol, settings: plain });
  }
  if (found.length < count) {
    throw new Error(`Core took only ${found.length} of ${triesMax} settings of ${protocol}`);
  }
  return found;
}

function isTaken(protocol: VpnProtocol, settings: Record<string, unknown>): boolean {
  try {
    validateProtocolSettings(protocol, settings);
    return true;
  } catch (thrown) {
    if (thrown instanceof CoreError && thrown.code === 'INVALID_ARGUMENT') return false;
    throw thrown;
  }
}

const protocols = ['VLESS', 'VMESS', 'TROJAN', 'SHADOWSOCKS', 'HYSTERIA2'] as const;

/** A value of the list, or nothing; more often nothing. */
const maybe = <T>(...values: T[]): fc.Arbitrary<T | undefined> =>
  fc.option(fc.constantFrom(...values), { nil: undefined, freq: 1 });
const rarely = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(value, { nil: undefined, freq: 1 });
const range = fc.constantFrom<number | string>(0, 1, 100, '1-5', '100-1000', '7-7');

const host = fc.constantFrom('a.example', 'cdn.example.com', '192.0.2.7', 'x--y.example');
const httpPath = fc.oneof(
  fc.constantFrom('/', '/p', '/p?ed=2048', '/a/b/', '/%zz', '/p#f', '/p?x=1&y', '/{a}[b]'),
  fc.stringMatching(/^\/[!-~]{0,20}$/),
);
const listen = maybe(
  ...['0.0.0.0', '127.0.0.1', '::', '::1', '::ffff:192.0.2.1', '2001:DB8::7'],
  ...['/run/core/a.sock', '/run/a.sock,0660', '@core', '@@core', '/a'],
);

const extra = fc.record({
  headers: maybe({ 'X-A': 'b' }),
  xPaddingBytes: rarely(range),
  xPaddingObfsMode: maybe(true, false),
  xPaddingKey: maybe('k', 'x_padding'),
  xPaddingHeader: maybe('X-P'),
  xPaddingPlacement: maybe('cookie', 'header', 'query', 'queryInHeader', 'path'),
  xPaddingMethod: maybe('repeat-x', 'tokenish'),
  uplinkHTTPMethod: maybe('POST', 'GET', 'PUT', 'PATCH'),
  sessionIDPlacement: maybe('path', 'cookie', 'header', 'query'),
  sessionIDKey: maybe('sid'),
  sessionIDTable: maybe('hex', 'Base62', 'number', 'abc', 'ABCDEFGHIJKLMNOP'),
  sessionIDLength: maybe<number | string>(1, 8, 20, '8-16', '0-40', 32),
  seqPlacement: maybe('path', 'cookie', 'header', 'query'),
  uplinkDataPlacement: maybe('auto', 'body', 'cookie', 'header'),
  uplinkChunkSize: rarely(range),
  noGRPCHeader: maybe(true),
  noSSEHeader: maybe(true),
  scMaxEachPostBytes: rarely(range),
  scMinPostsIntervalMs: rarely(range),
  scMaxBufferedPosts: maybe(0, 30),
  scStreamUpServerSecs: rarely(range),
  serverMaxHeaderBytes: maybe(0, 8_192),
  xmux: rarely(fc.record({ maxConcurrency: rarely(range), maxConnections: rarely(range) })),
});

const sockopt = fc.record({
  acceptProxyProtocol: maybe(true, false),
  trustedXForwardedFor: maybe(['X-Forwarded-For'], ['CF-Connecting-IP', 'X-Real-IP']),
  tcpFastOpen: maybe<boolean | number>(true, false, 0, 256),
  tcpKeepAliveIdle: maybe(-1, 0, 300),
  tcpKeepAliveInterval: maybe(-1, 0, 15),
  tcpUserTimeout: maybe(0, 10_000),
  tcpCongestion: maybe('bbr', 'cubic'),
  tcpMaxSeg: maybe(0, 1_440),
  tcpWindowClamp: maybe(0, 600),
  tcpMptcp: maybe(true, false),
  interface: maybe('lo', 'eth0'),
  mark: maybe(0, 255),
});

const fallbacks = fc.array(
  fc.record({
    name: maybe('a.example'),
    alpn: maybe('h2', 'http/1.1'),
    path: rarely(httpPath),
    dest: fc.oneof(
      fc.integer({ min: 1, max: 65_535 }),
      fc.constantFrom(
        '80',
        '127.0.0.1:80',
        '[::1]:80',
        'a.example:443',
        '/run/a.sock',
        '@a',
        '@@a',
      ),
      fc.constant('serve-ws-none'),
    ),
    xver: maybe(0, 1, 2),
  }),
  { minLength: 1, maxLength: 3 },
);

const reality = fc.record({
  target: fc.constantFrom('a.example:443', '192.0.2.1:443', '[::1]:443', '/run/a.sock', '@a'),
  serverNames: maybe(['a.example'], ['a.example', 'b.example'], ['192.0.2.1']),
  shortIds: maybe([''], ['ab'], ['0123456789ABCDEF', '']),
  minClientVer: maybe('1.8.0', '0.0.0', '26.3.27', '255.255.255'),
  maxClientVer: maybe('30.0.0'),
  maxTimeDiff: maybe(0, 60_000),
  xver: maybe(0, 1, 2),
  mldsa65Seed: fc.constant(undefined),
});

const keyPair = {
  server: 'yBaw532IIUNuQWDTncozoBaLJmcd1JZzvsHUgVPxMk8',
  client: '7xhH4b_VkliBxGulljcyPOH-bYUA2dl-XAdZAsfhk04',
};
const encryption = maybe(
  ...['native.600s.', 'xorpub.0s.', 'random.60-600s.', 'native.600s.100-111-1111.'].map(
    (middle) => ({
      decryption: `mlkem768x25519plus.${middle}${keyPair.server}`,
      encryption: `mlkem768x25519plus.${middle.split('.')[0]}.0rtt.${keyPair.client}`,
    }),
  ),
);

const ofXray = { sniffing: maybe(true, false), raw: maybe({ sniffing: { metadataOnly: true } }) };
const tlsOf = (files: Certificate) =>
  fc.record({
    certificateFile: fc.constant(files.certificateFile),
    keyFile: fc.constant(files.keyFile),
    serverName: rarely(host),
    alpn: maybe(['h2'], ['http/1.1'], ['h2', 'http/1.1']),
  });

function streamOf(files: Certificate, securities: readonly string[]) {
  return fc
    .record({
      listen,
      network: fc.constantFrom('raw', 'ws', 'grpc', 'xhttp'),
      ws: fc.record({ path: httpPath, host: rarely(host) }),
      grpc: fc.record({ serviceName: fc.stringMatching(/^[\w./-]{1,20}$/) }),
      xhttp: fc.record({
        path: httpPath,
        host: rarely(host),
        mode: maybe('auto', 'packet-up', 'stream-up', 'stream-one'),
        extra: rarely(extra),
      }),
      security: fc.constantFrom(...securities),
      tls: tlsOf(files),
      reality,
      sockopt: rarely(sockopt),
      fallbacks: rarely(fallbacks),
      ...ofXray,
    })
    .map(({ ws, grpc, xhttp, tls, reality: ofReality, ...rest }) => ({
      ...rest,
      ...{ ws: { ws }, grpc: { grpc }, xhttp: { xhttp }, raw: {} }[rest.network],
      ...{ tls: { tls }, reality: { reality: ofReality }, none: {} }[rest.security],
      fallbacks: rest.network === 'raw' ? rest.fallbacks : undefined,
    }));
}

function settingsOf(protocol: VpnProtocol, files: Certificate): fc.Arbitrary<object> {
  switch (protocol) {
    case 'VLESS':
      return fc
        .record({
          stream: streamOf(files, ['none', 'tls', 'reality']),
          flow: maybe('xtls-rprx-vision'),
          splice: maybe(true, false),
          encryption,
        })
        .map(({ stream, encryption: texts, ...rest }) => ({ ...stream, ...rest, ...texts }));
    case 'VMESS':
      return streamOf(files, ['none', 'tls']).map(({ fallbacks: _, ...rest }) => rest);
    case 'TROJAN':
      return streamOf(files, ['none', 'tls']);
    case 'SHADOWSOCKS':
      return fc.record({
        listen,
        method: maybe('2022-blake3-aes-128-gcm', '2022-blake3-aes-256-gcm'),
        network: maybe('tcp', 'udp', 'tcp,udp'),
        ...ofXray,
      });
    default:
      return fc.record({
        listen,
        tls: tlsOf(files).map(({ alpn: _, ...rest }) => rest),
        udpIdleTimeout: maybe(2, 600, 1),
        masquerade: maybe(
          { type: 'proxy', url: 'https://a.example/' },
          { type: 'file', dir: '/var/www' },
          { type: 'string', content: 'hello', statusCode: 404 },
        ),
        obfs: maybe(
          { type: 'salamander', password: 'pass word' },
          { type: 'salamander', password: 'p!~x' },
        ),
        congestion: rarely(
          fc.record({
            control: maybe('bbr', 'reno', 'brutal', 'force-brutal'),
            up: maybe('1 mbps', '525 kbps', '10 gbps', '99 kbps'),
            down: maybe('100 mbps'),
          }),
        ),
        ...ofXray,
      });
  }
}
