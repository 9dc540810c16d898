/**
 * Which parts of settings may be shown: the listed fields of an object, and each text, number or boolean
 * that passes its check. An array follows the rule of its elements. A field that is not listed may be a
 * credential, so nobody sees it.
 */
export type Harmless = ((value: unknown) => boolean) | { readonly [field: string]: Harmless };

const textCharsMax = 255;

/** Any text, number or boolean. */
export const shown = (): boolean => true;
/** A short value that cannot name a user in front of an `@`. */
const plain = (value: unknown): boolean =>
  typeof value !== 'string' || (value.length <= textCharsMax && !value.includes('@'));
/** Exactly this value. */
const only =
  (expected: unknown) =>
  (value: unknown): boolean =>
    value === expected;
/** A URL without the parts that may contain a user, a password or a token. */
const bareUrl = (value: unknown): boolean => {
  if (typeof value !== 'string' || !URL.canParse(value)) return false;
  const { username, password, search, hash } = new URL(value);
  return username + password + search + hash === '';
};

const range = { maxConcurrency: plain, maxConnections: plain, cMaxReuseTimes: plain };

/** What an `extra` of XHTTP says. Headers and where a client downloads may be secret. */
const xhttpExtra: Harmless = {
  xPaddingBytes: plain,
  xPaddingObfsMode: plain,
  xPaddingKey: plain,
  xPaddingHeader: plain,
  xPaddingPlacement: plain,
  xPaddingMethod: plain,
  uplinkHTTPMethod: plain,
  sessionIDPlacement: plain,
  sessionIDKey: plain,
  sessionIDLength: plain,
  seqPlacement: plain,
  seqKey: plain,
  uplinkDataPlacement: plain,
  uplinkDataKey: plain,
  uplinkChunkSize: plain,
  noGRPCHeader: plain,
  noSSEHeader: plain,
  scMaxEachPostBytes: plain,
  scMinPostsIntervalMs: plain,
  scMaxBufferedPosts: plain,
  scStreamUpServerSecs: plain,
  serverMaxHeaderBytes: plain,
  xmux: { ...range, hMaxRequestTimes: plain, hMaxReusableSecs: plain, hKeepAlivePeriod: plain },
};

/**
 * Settings of protocols. Keys (`reality.privateKey`, `reality.shortIds`, `reality.mldsa65Seed`,
 * `serverKey`, `adTag`, `decryption`, `encryption`), `obfs.password` and all of `raw` are secret. A test
 * compares this list with all settings that exist.
 */
export const protocolSettings: Harmless = {
  listen: plain,
  publicHost: plain,
  publicPort: plain,
  network: plain,
  security: plain,
  ws: { path: shown, host: plain },
  grpc: { serviceName: plain },
  xhttp: { path: shown, mode: plain, host: plain, extra: xhttpExtra },
  tls: { certificateFile: shown, keyFile: shown, serverName: plain, alpn: plain },
  reality: {
    target: plain,
    serverNames: plain,
    publicKey: plain,
    minClientVer: plain,
    maxClientVer: plain,
    maxTimeDiff: plain,
    xver: plain,
  },
  faces: {
    name: shown,
    host: plain,
    port: plain,
    security: plain,
    sni: plain,
    httpHost: plain,
    path: shown,
    alpn: plain,
    fingerprint: plain,
    pins: plain,
  },
  fingerprint: plain,
  pins: plain,
  sockopt: {
    acceptProxyProtocol: plain,
    trustedXForwardedFor: plain,
    tcpFastOpen: plain,
    tcpKeepAliveIdle: plain,
    tcpKeepAliveInterval: plain,
    tcpUserTimeout: plain,
    tcpCongestion: plain,
    tcpMaxSeg: plain,
    tcpWindowClamp: plain,
    tcpMptcp: plain,
    interface: plain,
    mark: plain,
  },
  sniffing: plain,
  flow: plain,
  splice: plain,
  fallbacks: { name: plain, alpn: plain, path: shown, dest: plain, xver: plain },
  obfs: { type: plain },
  congestion: { control: plain, up: plain, down: plain },
  method: plain,
  udpIdleTimeout: plain,
  masquerade: {
    type: plain,
    url: bareUrl,
    rewriteHost: plain,
    dir: shown,
    content: shown,
    statusCode: plain,
  },
  tlsDomain: plain,
  modes: { classic: plain, secure: plain, tls: plain },
  maxTcpConns: plain,
  maxUniqueIps: plain,
};

const server = {
  address: plain,
  port: plain,
  level: plain,
  method: plain,
  flow: plain,
  /** Any other value contains keys. */
  encryption: only('none'),
  security: plain,
  uot: plain,
  UoTVersion: plain,
};

/** Settings of outbounds. Core passes them on unchanged: https://xtls.github.io/en/config/outbounds/ */
export const outboundSettings: Harmless = {
  ...server,
  version: plain,
  network: plain,
  domainStrategy: plain,
  targetStrategy: plain,
  redirect: plain,
  userLevel: plain,
  proxyProtocol: plain,
  fragment: { packets: plain, length: plain, interval: plain, maxSplit: plain },
  noises: { type: plain, delay: plain, applyTo: plain },
  response: { type: plain },
  inboundTag: plain,
  nonIPQuery: plain,
  blockTypes: plain,
  servers: { ...server, users: { level: plain } },
  vnext: {
    address: plain,
    port: plain,
    users: { level: plain, flow: plain, encryption: only('none'), security: plain, alterId: plain },
  },
  peers: { endpoint: plain, publicKey: plain, keepAlive: plain, allowedIPs: plain },
  mtu: plain,
  workers: plain,
  noKernelTun: plain,
};

/** Rules. `user` names UUIDs of links, and `attrs` may be headers, so both are secret. */
export const routingRule: Harmless = {
  type: shown,
  ruleTag: shown,
  outboundTag: shown,
  inboundTag: shown,
  domain: shown,
  ip: shown,
  port: shown,
  sourcePort: shown,
  localPort: shown,
  network: shown,
  sourceIP: shown,
  source: shown,
  localIP: shown,
  vlessRoute: shown,
  protocol: shown,
  process: shown,
};
