import { z } from 'zod';
import {
  bytesOfBase64Url,
  domainStrategy,
  headers,
  host,
  integer,
  port,
  ports,
  range,
  someText,
  tag,
  text,
  word,
} from '../routing/values.ts';
import { browsers } from '../tls.ts';
import { realityKey } from './keys.ts';

// The `streamSettings` of an outbound: https://xtls.github.io/en/config/transport.html. Core has what a client
// of a server sets; `raw` of the outbound says the rest.

const strings = z.array(someText).min(1).max(64);
const isoName = z
  .string()
  .max(255)
  .regex(/^[A-Za-z0-9._:[\]-]*$/, 'Must be a host name');
const printablePath = z
  .string()
  .max(1_024)
  .regex(/^[!-~]*$/, 'Must be printable ASCII');

/** The names that each supported version of Xray knows as a client; see transport/internet/tls. */
const xrayBrowsers = [
  ...browsers,
  'randomizednoalpn',
  'hellochrome_120',
  'hellochrome_131',
  'hellofirefox_120',
  'hellochrome_auto',
  'hellofirefox_auto',
  'helloios_auto',
] as const;

const socketOptions = z.strictObject({
  mark: integer.optional(),
  tcpFastOpen: z.union([z.boolean(), integer]).optional(),
  tproxy: z.enum(['off', 'redirect', 'tproxy']).optional(),
  domainStrategy: domainStrategy.optional(),
  dialerProxy: tag.optional(),
  tcpKeepAliveInterval: z.int().min(-1).max(65_535).optional(),
  tcpKeepAliveIdle: z.int().min(-1).max(65_535).optional(),
  tcpCongestion: z
    .string()
    .regex(/^[a-z0-9_]{1,16}$/, 'Must be a name like bbr')
    .optional(),
  tcpWindowClamp: integer.optional(),
  tcpMaxSeg: integer.optional(),
  tcpUserTimeout: integer.optional(),
  penetrate: z.boolean().optional(),
  v6only: z.boolean().optional(),
  interface: z
    .string()
    .regex(/^[!-~]{1,15}$/, 'Must be the name of an interface')
    .optional(),
  tcpMptcp: z.boolean().optional(),
  addressPortStrategy: word([
    'none',
    'SrvPortOnly',
    'SrvAddressOnly',
    'SrvPortAndAddress',
    'TxtPortOnly',
    'TxtAddressOnly',
    'TxtPortAndAddress',
  ]).optional(),
  happyEyeballs: z
    .strictObject({
      prioritizeIPv6: z.boolean().optional(),
      tryDelayMs: integer.optional(),
      interleave: integer.optional(),
      maxConcurrentTry: integer.optional(),
    })
    .optional(),
  customSockopt: z
    .array(
      z.strictObject({
        system: z.enum(['linux', 'windows', 'darwin', '']).optional(),
        network: text.optional(),
        level: text.optional(),
        opt: z.string().regex(/^\d{1,6}$/, 'Must be a number as text'),
        value: text,
        type: z.enum(['int', 'str']),
      }),
    )
    .max(64)
    .optional(),
});

const sha256List = z
  .string()
  .refine(
    (given) =>
      given.split(',').every((one) => /^[0-9a-f]{64}$/i.test(one.trim().replaceAll(':', ''))),
    'Must be SHA-256 in hex, several with commas',
  );
const tlsVersions = z.enum(['1.0', '1.1', '1.2', '1.3']);

const tls = z.strictObject({
  serverName: isoName.optional(),
  alpn: z.array(someText).min(1).max(8).optional(),
  fingerprint: word([...xrayBrowsers, 'unsafe']).optional(),
  allowInsecure: z
    .literal(false, 'Must be false: Xray no longer has it; use pinnedPeerCertSha256')
    .optional(),
  pinnedPeerCertSha256: sha256List.optional(),
  verifyPeerCertByName: text.optional(),
  enableSessionResumption: z.boolean().optional(),
  disableSystemRoot: z.boolean().optional(),
  minVersion: tlsVersions.optional(),
  maxVersion: tlsVersions.optional(),
  cipherSuites: text.optional(),
  curvePreferences: strings.optional(),
  masterKeyLog: text.optional(),
  echConfigList: text.optional(),
  echSockopt: socketOptions.optional(),
});

const reality = z
  .strictObject({
    serverName: isoName.optional(),
    fingerprint: word(xrayBrowsers).optional(),
    password: realityKey.optional(),
    /** The older name of `password`. */
    publicKey: realityKey.optional(),
    shortId: z
      .string()
      .regex(/^([0-9a-f]{2}){0,8}$/i, 'Must be up to 16 hex digits, an even count')
      .optional(),
    mldsa65Verify: z
      .string()
      .refine((given) => bytesOfBase64Url(given) === 1_952, 'Must be 1952 bytes in base64url')
      .optional(),
    spiderX: printablePath
      .regex(/^\/([^%]|%[0-9a-f]{2})*$/i, 'Must start with / and have no broken % escape')
      .optional(),
    show: z.boolean().optional(),
    masterKeyLog: text.optional(),
  })
  .refine(
    (given) => given.password !== undefined || given.publicKey !== undefined,
    'Needs password, the public key of the server (publicKey is its older name)',
  );

const httpRequest = z.strictObject({
  version: text.optional(),
  method: text.optional(),
  path: z.array(printablePath).max(64).optional(),
  headers: z.record(z.string(), z.array(text).max(64)).optional(),
});
const rawHeader = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('none') }),
  z.strictObject({ type: z.literal('http'), request: httpRequest.optional() }),
]);
const raw = z.strictObject({ header: rawHeader.optional() });

const noHost = headers.refine(
  (given) => !Object.keys(given).some((name) => name.toLowerCase() === 'host'),
  'Must not have Host: the field host says it',
);
const ws = z.strictObject({
  path: printablePath.optional(),
  host: isoName.optional(),
  headers: noHost.optional(),
  heartbeatPeriod: integer.optional(),
});
const httpUpgrade = z.strictObject({
  path: printablePath.optional(),
  host: isoName.optional(),
  headers: noHost.optional(),
});
const grpc = z.strictObject({
  serviceName: printablePath.optional(),
  authority: text.optional(),
  multiMode: z.boolean().optional(),
  idle_timeout: integer.optional(),
  health_check_timeout: integer.optional(),
  permit_without_stream: z.boolean().optional(),
  initial_windows_size: integer.optional(),
  user_agent: text.optional(),
});
const kcp = z.strictObject({
  mtu: z.int().min(576).max(1_460).optional(),
  tti: z.int().min(10).max(100).optional(),
  uplinkCapacity: integer.optional(),
  downlinkCapacity: integer.optional(),
  congestion: z.boolean().optional(),
  readBufferSize: z.int().min(1).max(1_024).optional(),
  writeBufferSize: z.int().min(1).max(1_024).optional(),
  cwndMultiplier: z.int().min(1).max(1_000).optional(),
});
const hysteria = z.strictObject({
  version: z.literal(2),
  auth: z.string().max(1_024).optional(),
  udpIdleTimeout: z.int().min(2).max(600).optional(),
});

const xmux = z
  .strictObject({
    maxConcurrency: range.optional(),
    maxConnections: range.optional(),
    cMaxReuseTimes: range.optional(),
    hMaxRequestTimes: range.optional(),
    hMaxReusableSecs: range.optional(),
    hKeepAlivePeriod: z.int().min(-1).max(86_400).optional(),
  })
  .refine(
    ({ maxConcurrency = 0, maxConnections = 0 }) =>
      maxOf(maxConcurrency) === 0 || maxOf(maxConnections) === 0,
    'Must not have both maxConcurrency and maxConnections',
  );

function maxOf(given: number | string): number {
  return Math.max(...String(given).split('-').map(Number));
}

const placement = z.enum(['path', 'cookie', 'header', 'query']);
const xhttpMore = {
  headers: noHost.optional(),
  xPaddingBytes: range
    .refine(
      (given) =>
        String(given)
          .split('-')
          .every((one) => Number(one) > 0),
      'Must be above 0',
    )
    .optional(),
  xPaddingObfsMode: z.boolean().optional(),
  xPaddingKey: text.optional(),
  xPaddingHeader: text.optional(),
  xPaddingPlacement: z.enum(['cookie', 'header', 'query', 'queryInHeader']).optional(),
  xPaddingMethod: z.enum(['repeat-x', 'tokenish']).optional(),
  uplinkHTTPMethod: z.enum(['POST', 'PUT', 'PATCH']).optional(),
  sessionIDPlacement: placement.optional(),
  sessionIDKey: text.optional(),
  seqPlacement: placement.optional(),
  seqKey: text.optional(),
  noGRPCHeader: z.boolean().optional(),
  scMaxEachPostBytes: range.optional(),
  scMinPostsIntervalMs: range.optional(),
  xmux: xmux.optional(),
};
const xhttp = z.strictObject({
  path: printablePath.optional(),
  host: isoName.optional(),
  mode: z.enum(['auto', 'packet-up', 'stream-up', 'stream-one']).optional(),
  ...xhttpMore,
  /** Replaces everything but path, host and mode. */
  extra: z.strictObject(xhttpMore).optional(),
});

const bandwidth = z
  .string()
  .regex(/^\d{1,9}(\.\d{1,3})? ?([kmgt]?b?ps|[kmgt]b?|)$/i, 'Must be like "100 mbps"')
  .refine((given) => bytesPerSecond(given) === 0 || bytesPerSecond(given) >= 65_536, {
    message: 'Must be at least 65536 bytes a second, 524288 bps',
  });

function bytesPerSecond(given: string): number {
  const [, number = '0', unit = ''] = /^([\d.]+) ?([a-z]?)/i.exec(given) ?? [];
  const power = ['k', 'm', 'g', 't'].indexOf(unit.toLowerCase()) + 1;
  return (Number(number) * 1_024 ** power) / 8;
}

const receiveWindow = z.int().min(16_384).max(1_073_741_824).optional();
const quicParams = z
  .strictObject({
    congestion: word(['brutal', 'reno', 'bbr', 'force-brutal']).optional(),
    bbrProfile: word(['conservative', 'standard', 'aggressive']).optional(),
    brutalUp: bandwidth.optional(),
    brutalDown: bandwidth.optional(),
    udpHop: z
      .strictObject({
        ports: ports.optional(),
        interval: range
          .refine(
            (given) =>
              String(given)
                .split('-')
                .every((one) => Number(one) >= 5),
            'Must be at least 5',
          )
          .optional(),
      })
      .optional(),
    initStreamReceiveWindow: receiveWindow,
    maxStreamReceiveWindow: receiveWindow,
    initConnectionReceiveWindow: receiveWindow,
    maxConnectionReceiveWindow: receiveWindow,
    maxIdleTimeout: z.int().min(4).max(120).optional(),
    keepAlivePeriod: z.int().min(2).max(60).optional(),
    disablePathMTUDiscovery: z.boolean().optional(),
    maxIncomingStreams: z.int().min(8).max(65_535).optional(),
  })
  .refine(
    ({ congestion, brutalUp = '0' }) =>
      congestion?.toLowerCase() !== 'force-brutal' || bytesPerSecond(brutalUp) > 0,
    { path: ['brutalUp'], message: 'Is needed with congestion force-brutal' },
  );
/** What hides the packets; the other masks of Xray are said by `raw`. */
const finalMask = z.strictObject({
  udp: z
    .array(
      z.strictObject({
        type: z.literal('salamander'),
        settings: z.strictObject({ password: someText }),
      }),
    )
    .max(4)
    .optional(),
  quicParams: quicParams.optional(),
});

const network = word([
  'raw',
  'tcp',
  'ws',
  'websocket',
  'grpc',
  'xhttp',
  'splithttp',
  'httpupgrade',
  'kcp',
  'mkcp',
  'hysteria',
]);

const streamObject = z.strictObject({
  address: host.optional(),
  port: port.optional(),
  network: network.optional(),
  /** The newer name of `network`, which Xray before 26.7.11 does not read. */
  method: network.optional(),
  security: word(['none', 'tls', 'reality']).optional(),
  tlsSettings: tls.optional(),
  realitySettings: reality.optional(),
  rawSettings: raw.optional(),
  tcpSettings: raw.optional(),
  wsSettings: ws.optional(),
  grpcSettings: grpc.optional(),
  xhttpSettings: xhttp.optional(),
  splithttpSettings: xhttp.optional(),
  httpupgradeSettings: httpUpgrade.optional(),
  kcpSettings: kcp.optional(),
  hysteriaSettings: hysteria.optional(),
  finalmask: finalMask.optional(),
  sockopt: socketOptions.optional(),
});

/** Each block of a network, and the names by which the network is said. */
const blocks: readonly [block: keyof z.output<typeof streamObject>, networks: readonly string[]][] =
  [
    ['rawSettings', ['raw', 'tcp']],
    ['tcpSettings', ['raw', 'tcp']],
    ['wsSettings', ['ws', 'websocket']],
    ['grpcSettings', ['grpc']],
    ['xhttpSettings', ['xhttp', 'splithttp']],
    ['splithttpSettings', ['xhttp', 'splithttp']],
    ['httpupgradeSettings', ['httpupgrade']],
    ['kcpSettings', ['kcp', 'mkcp']],
    ['hysteriaSettings', ['hysteria']],
  ];

export type OutboundStream = z.output<typeof streamObject>;

/** The network of a stream in lower case, under one of its names. */
export function networkOf(stream: OutboundStream | undefined): string {
  return (stream?.method ?? stream?.network ?? 'raw').toLowerCase();
}

/** The security of a stream in lower case. */
export function securityOf(stream: OutboundStream | undefined): string {
  return (stream?.security ?? 'none').toLowerCase();
}

/** Checks that the parts go together. Xray ignores a block of another network, so a typing error would too. */
export const outboundStream = streamObject.superRefine((given, context) => {
  const fault = (place: string, message: string): void => {
    context.addIssue({ code: 'custom', path: [place], message });
  };
  const [network, security] = [networkOf(given), securityOf(given)];
  for (const [block, names] of blocks) {
    if (given[block] !== undefined && !names.includes(network)) {
      fault(block, `Only goes with network ${names[0]}`);
    }
  }
  for (const one of ['tls', 'reality'] as const) {
    const block = `${one}Settings` as const;
    if (given[block] !== undefined && security !== one)
      fault(block, `Only goes with security ${one}`);
  }
  if (security === 'reality') {
    if (given.realitySettings === undefined)
      fault('realitySettings', 'Is needed with security reality');
    if (!['raw', 'tcp', 'grpc', 'xhttp', 'splithttp'].includes(network)) {
      fault('network', 'Must be raw, grpc or xhttp with security reality');
    }
  }
  if (network === 'hysteria') {
    if (given.hysteriaSettings === undefined)
      fault('hysteriaSettings', 'Is needed with network hysteria');
    if (security !== 'tls') fault('security', 'Must be tls with network hysteria');
  }
  const alpn = given.tlsSettings?.alpn;
  if (alpn === undefined) return;
  if (network === 'grpc' && !alpn.includes('h2'))
    fault('tlsSettings', 'Must have h2 in alpn with network grpc');
  if (/^(ws|websocket|httpupgrade)$/.test(network) && !alpn.includes('http/1.1')) {
    fault('tlsSettings', `Must have http/1.1 in alpn with network ${network}`);
  }
});
