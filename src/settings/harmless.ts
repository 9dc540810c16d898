/**
 * What may be shown of settings: of an object the fields that are listed, of an array what holds for
 * each element, of a text, number or boolean what the check lets through. Whatever is not listed may
 * be a credential, and is not shown.
 */
export type Harmless = ((value: unknown) => boolean) | { readonly [field: string]: Harmless };

const textCharsMax = 255;

/** Anything that is no object. */
export const shown = (): boolean => true;
/** What is short and names no user before an `@`. */
const plain = (value: unknown): boolean =>
  typeof value !== 'string' || (value.length <= textCharsMax && !value.includes('@'));
const only =
  (expected: unknown) =>
  (value: unknown): boolean =>
    value === expected;
/** A user, a password or a token may stand in the rest of a URL. */
const bareUrl = (value: unknown): boolean => {
  if (typeof value !== 'string' || !URL.canParse(value)) return false;
  const { username, password, search, hash } = new URL(value);
  return username + password + search + hash === '';
};

/**
 * Settings of protocols. Left out are `reality.privateKey` and `shortIds`, `serverKey` and `adTag`;
 * a test holds this together with the settings that there are.
 */
export const protocolSettings: Harmless = {
  listen: plain,
  publicHost: plain,
  publicPort: plain,
  network: plain,
  security: plain,
  ws: { path: shown, host: plain },
  grpc: { serviceName: plain },
  xhttp: { path: shown, mode: plain, host: plain },
  tls: { certificateFile: shown, keyFile: shown, serverName: plain, alpn: plain },
  reality: { target: plain, serverNames: plain, publicKey: plain, minClientVer: plain },
  sniffing: plain,
  flow: plain,
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
  /** Anything but `none` holds keys. */
  encryption: only('none'),
  security: plain,
  uot: plain,
  UoTVersion: plain,
};

/** Settings of outbounds, which Core hands on as they are: https://xtls.github.io/en/config/outbounds/ */
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

/** Rules. Left out are `user`, the UUIDs of links, and `attrs`, which may be headers. */
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
