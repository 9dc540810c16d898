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

/** The same, or an address or a word. */
const bareUrlOrPlain = (value: unknown): boolean =>
  typeof value === 'string' && value.includes('://') ? bareUrl(value) : plain(value);

const xmuxRange = { maxConcurrency: plain, maxConnections: plain, cMaxReuseTimes: plain };

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
  xmux: { ...xmuxRange, hMaxRequestTimes: plain, hMaxReusableSecs: plain, hKeepAlivePeriod: plain },
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

const range = plain;
const sniffing = { enabled: plain, destOverride: plain, metadataOnly: plain, routeOnly: plain };

/**
 * Settings of outbounds. Ids, passwords, keys, headers and `packet` of noises are secret. A test compares this
 * list with all fields that exist.
 */
export const outboundSettings: Harmless = {
  ...server,
  uotVersion: plain,
  version: plain,
  network: plain,
  domainStrategy: plain,
  targetStrategy: plain,
  redirect: plain,
  userLevel: plain,
  proxyProtocol: plain,
  fragment: { packets: plain, length: range, interval: range, maxSplit: range },
  noises: { type: plain, delay: range, applyTo: plain },
  finalRules: { action: plain, network: plain, port: plain, ip: plain, blockDelay: range },
  response: { type: plain },
  inboundTag: plain,
  sniffing: { ...sniffing, domainsExcluded: plain, ipsExcluded: plain },
  rewriteNetwork: plain,
  rewriteAddress: plain,
  rewritePort: plain,
  rules: { action: plain, qType: plain, domain: plain, rCode: plain },
  nonIPQuery: plain,
  blockTypes: plain,
  reverse: { tag: plain },
  alterId: plain,
  testpre: plain,
  experiments: plain,
  servers: { ...server, uotVersion: plain, users: { level: plain } },
  vnext: {
    address: plain,
    port: plain,
    users: {
      level: plain,
      flow: plain,
      encryption: only('none'),
      security: plain,
      alterId: plain,
      testpre: plain,
      experiments: plain,
    },
  },
  peers: { endpoint: plain, publicKey: plain, keepAlive: plain, allowedIPs: plain, level: plain },
  mtu: plain,
  workers: plain,
  noKernelTun: plain,
};

const socketOptions = {
  mark: plain,
  tcpFastOpen: plain,
  tproxy: plain,
  domainStrategy: plain,
  dialerProxy: plain,
  tcpKeepAliveInterval: plain,
  tcpKeepAliveIdle: plain,
  tcpCongestion: plain,
  tcpWindowClamp: plain,
  tcpMaxSeg: plain,
  tcpUserTimeout: plain,
  penetrate: plain,
  v6only: plain,
  interface: plain,
  tcpMptcp: plain,
  addressPortStrategy: plain,
  happyEyeballs: {
    prioritizeIPv6: plain,
    tryDelayMs: plain,
    interleave: plain,
    maxConcurrentTry: plain,
  },
};
const xhttp = {
  path: shown,
  host: plain,
  mode: plain,
  xPaddingBytes: range,
  uplinkHTTPMethod: plain,
  noGRPCHeader: plain,
  scMaxEachPostBytes: range,
  scMinPostsIntervalMs: range,
};
const rawTransport = { header: { type: plain } };

/**
 * What an outbound has beside its settings. `raw` may contain anything, and short ids, keys, headers and
 * passwords are credentials. A test compares this list with all fields that exist.
 */
export const outboundOptions: Harmless = {
  sendThrough: plain,
  targetStrategy: plain,
  mux: { enabled: plain, concurrency: plain, xudpConcurrency: plain, xudpProxyUDP443: plain },
  proxySettings: { tag: plain, transportLayer: plain },
  streamSettings: {
    address: plain,
    port: plain,
    network: plain,
    method: plain,
    security: plain,
    tlsSettings: {
      serverName: plain,
      alpn: plain,
      fingerprint: plain,
      allowInsecure: plain,
      pinnedPeerCertSha256: plain,
      verifyPeerCertByName: plain,
      enableSessionResumption: plain,
      disableSystemRoot: plain,
      minVersion: plain,
      maxVersion: plain,
      cipherSuites: plain,
      curvePreferences: plain,
    },
    realitySettings: { serverName: plain, fingerprint: plain, password: plain, publicKey: plain },
    rawSettings: rawTransport,
    tcpSettings: rawTransport,
    wsSettings: { path: shown, host: plain, heartbeatPeriod: plain },
    grpcSettings: { serviceName: plain, authority: plain, multiMode: plain },
    xhttpSettings: xhttp,
    splithttpSettings: xhttp,
    httpupgradeSettings: { path: shown, host: plain },
    kcpSettings: { mtu: plain, tti: plain, uplinkCapacity: plain, downlinkCapacity: plain },
    hysteriaSettings: { version: plain, udpIdleTimeout: plain },
    sockopt: socketOptions,
  },
};

/** What a node's Xray has beside these. `raw` may contain anything. */
export const xraySettings: Harmless = {
  domainStrategy: plain,
  dns: {
    servers: {
      address: bareUrlOrPlain,
      port: plain,
      clientIp: plain,
      domains: shown,
      expectedIPs: shown,
      expectIPs: shown,
      unexpectedIPs: shown,
      skipFallback: plain,
      finalQuery: plain,
      queryStrategy: plain,
      tag: plain,
      timeoutMs: plain,
      disableCache: plain,
      serveStale: plain,
      serveExpiredTTL: plain,
    },
    clientIp: plain,
    tag: plain,
    queryStrategy: plain,
    disableCache: plain,
    serveStale: plain,
    serveExpiredTTL: plain,
    disableFallback: plain,
    disableFallbackIfMatch: plain,
    enableParallelQuery: plain,
    useSystemHosts: plain,
  },
  balancers: {
    tag: plain,
    selector: plain,
    fallbackTag: plain,
    strategy: {
      type: plain,
      settings: { expected: plain, maxRTT: plain, tolerance: plain, baselines: plain },
    },
  },
  observatory: {
    subjectSelector: plain,
    probeURL: bareUrl,
    probeInterval: plain,
    enableConcurrency: plain,
  },
  burstObservatory: {
    subjectSelector: plain,
    pingConfig: {
      destination: bareUrl,
      connectivity: bareUrl,
      interval: plain,
      sampling: plain,
      timeout: plain,
      httpMethod: plain,
    },
  },
};

/** Rules. `attrs` may be headers, and a webhook's URL may hold a token, so both are secret, and so is `user`. */
export const routingRule: Harmless = {
  type: shown,
  ruleTag: shown,
  outboundTag: shown,
  balancerTag: shown,
  inboundTag: shown,
  domain: shown,
  domains: shown,
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
