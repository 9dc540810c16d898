/** What a share link says, as a client app reads it. `undefined` means that the link does not say it. */
export type ReadLink = { name: string; host: string; port: number } & (
  | {
      protocol: 'vless';
      id: string;
      encryption: string;
      flow: string | undefined;
      stream: ReadStream;
    }
  | { protocol: 'vmess'; id: string; encryption: string; stream: ReadStream }
  | { protocol: 'trojan'; password: string; stream: ReadStream }
  | { protocol: 'shadowsocks'; method: string; password: string }
  | {
      protocol: 'hysteria2';
      password: string;
      sni: string | undefined;
      alpn: string[] | undefined;
      isInsecure: boolean;
      pin: string | undefined;
    }
);

export interface ReadStream {
  network: 'tcp' | 'ws' | 'grpc' | 'xhttp';
  security: 'none' | 'tls' | 'reality';
  path: string | undefined;
  host: string | undefined;
  /** Of xhttp: the mode. Of grpc: `gun` or `multi`. */
  mode: string | undefined;
  serviceName: string | undefined;
  authority: string | undefined;
  /** Of xhttp: JSON of further settings. */
  extra: string | undefined;
  sni: string | undefined;
  fingerprint: string | undefined;
  alpn: string[] | undefined;
  publicKey: string | undefined;
  shortId: string | undefined;
  spiderX: string | undefined;
  /** Of REALITY: the key by which the client checks the server's signature after quantum computers. */
  mldsa65Verify: string | undefined;
  /** SHA-256 of the certificate, in hexadecimal. */
  pin: string | undefined;
}

/**
 * Reads a share link by the public descriptions of each scheme, and knows nothing of how Core writes it:
 * https://github.com/XTLS/Xray-core/discussions/716 for VLESS, Trojan, and VMess as a URI,
 * https://github.com/2dust/v2rayN/wiki/Description-of-VMess-share-link for VMess in Base64,
 * https://shadowsocks.org/doc/sip002.html, and https://v2.hysteria.network/docs/developers/URI-Scheme.
 * @throws Error for a parameter that it does not know: a client app would ignore it, so the cell would pass
 * without it.
 */
export function readLink(uri: string): ReadLink {
  const scheme = uri.slice(0, uri.indexOf(':'));
  switch (scheme) {
    case 'vless':
      return readVless(uri);
    case 'trojan':
      return readTrojan(uri);
    case 'vmess':
      return uri.includes('@') ? readVmessUri(uri) : readVmessBase64(uri);
    case 'ss':
      return readShadowsocks(uri);
    case 'hysteria2':
    case 'hy2':
      return readHysteria2(uri);
    default:
      throw new Error(`no client of this run takes ${scheme} links`);
  }
}

function readVless(uri: string): ReadLink {
  const { common, user, query } = open(uri);
  const encryption = query.take('encryption') ?? 'none';
  const read = { ...common, protocol: 'vless' as const, id: user, encryption };
  const link = { ...read, flow: query.take('flow'), stream: readStream(query) };
  query.end();
  return link;
}

function readVmessUri(uri: string): ReadLink {
  const { common, user, query } = open(uri);
  const encryption = query.take('encryption') ?? 'auto';
  const stream = readStream(query);
  query.end();
  return { ...common, protocol: 'vmess', id: user, encryption, stream };
}

function readTrojan(uri: string): ReadLink {
  const { common, user, query } = open(uri);
  // A Trojan link without `security` is one over TLS, because Trojan was made for it.
  const stream = readStream(query, 'tls');
  query.end();
  return { ...common, protocol: 'trojan', password: user, stream };
}

function readVmessBase64(uri: string): ReadLink {
  const text = Buffer.from(uri.slice('vmess://'.length), 'base64').toString();
  const fields = createQuery(
    Object.entries(JSON.parse(text) as Record<string, string | number>).map(
      ([name, value]) => [name, String(value)] as const,
    ),
  );
  const given = (name: string): string | undefined => fields.take(name) || undefined;
  if (fields.take('v') !== '2') throw new Error('the VMess link is not of version 2');
  if ((given('aid') ?? '0') !== '0') throw new Error('the VMess link asks for the old handshake');
  const network = networkOf(given('net'));
  const [type, path] = [given('type'), given('path')];
  const isGrpc = network === 'grpc';
  const link: ReadLink = {
    protocol: 'vmess',
    name: fields.take('ps') ?? '',
    host: fields.take('add') ?? '',
    port: Number(fields.take('port')),
    id: fields.take('id') ?? '',
    encryption: given('scy') ?? 'auto',
    stream: {
      ...noStream,
      network,
      security: securityOf(given('tls'), 'none'),
      path: isGrpc ? undefined : path,
      serviceName: isGrpc ? path : undefined,
      mode: type === 'none' ? undefined : type,
      host: given('host'),
      sni: given('sni'),
      alpn: given('alpn')?.split(','),
      fingerprint: given('fp'),
      pin: given('pcs'),
      extra: given('extra'),
    },
  };
  fields.end();
  return link;
}

/** With a 2022 method the user part is percent-encoded; with an older one it is Base64. */
function readShadowsocks(uri: string): ReadLink {
  const { common, user, password, query } = open(uri);
  query.end();
  const plain = password === '' ? Buffer.from(user, 'base64url').toString() : `${user}:${password}`;
  const colon = plain.indexOf(':');
  const method = plain.slice(0, colon);
  return { ...common, protocol: 'shadowsocks', method, password: plain.slice(colon + 1) };
}

function readHysteria2(uri: string): ReadLink {
  const { common, user, password, query } = open(uri);
  const link: ReadLink = {
    ...common,
    protocol: 'hysteria2',
    password: password === '' ? user : `${user}:${password}`,
    sni: query.take('sni'),
    alpn: query.take('alpn')?.split(','),
    isInsecure: query.take('insecure') === '1',
    pin: query.take('pinSHA256'),
  };
  query.end();
  return link;
}

const noStream: Omit<ReadStream, 'network' | 'security'> = {
  path: undefined,
  host: undefined,
  mode: undefined,
  serviceName: undefined,
  authority: undefined,
  extra: undefined,
  sni: undefined,
  fingerprint: undefined,
  alpn: undefined,
  publicKey: undefined,
  shortId: undefined,
  spiderX: undefined,
  mldsa65Verify: undefined,
  pin: undefined,
};

function readStream(query: Query, securityByDefault: 'none' | 'tls' = 'none'): ReadStream {
  // Panels write it empty.
  const headerType = query.take('headerType') ?? '';
  if (!['', 'none'].includes(headerType)) throw new Error(`headerType=${headerType} is not known`);
  return {
    network: networkOf(query.take('type')),
    security: securityOf(query.take('security'), securityByDefault),
    path: query.take('path'),
    host: query.take('host'),
    mode: query.take('mode'),
    serviceName: query.take('serviceName'),
    authority: query.take('authority'),
    extra: query.take('extra'),
    sni: query.take('sni'),
    fingerprint: query.take('fp'),
    alpn: query.take('alpn')?.split(','),
    publicKey: query.take('pbk'),
    shortId: query.take('sid'),
    spiderX: query.take('spx'),
    mldsa65Verify: query.take('pqv'),
    pin: query.take('pcs'),
  };
}

function networkOf(given = 'tcp'): ReadStream['network'] {
  const known = ['tcp', 'ws', 'grpc', 'xhttp'] as const;
  const network = known.find((one) => one === given);
  if (network === undefined) throw new Error(`type=${given} is not known`);
  return network;
}

function securityOf(given: string | undefined, byDefault: 'none' | 'tls'): ReadStream['security'] {
  const known = ['none', 'tls', 'reality'] as const;
  const security = known.find((one) => one === (given ?? byDefault));
  if (security === undefined) throw new Error(`security=${given} is not known`);
  return security;
}

interface Query {
  /** The value of a parameter; undefined if the link does not have it. */
  take(name: string): string | undefined;
  /** Fails if there is a parameter that nobody has taken. */
  end(): void;
}

function createQuery(pairs: readonly (readonly [name: string, value: string])[]): Query {
  const left = new Map(pairs);
  if (left.size !== pairs.length) throw new Error('the link has a parameter twice');
  return {
    take(name) {
      const value = left.get(name);
      left.delete(name);
      return value;
    },
    end() {
      if (left.size > 0) throw new Error(`the link has unknown parameters: ${[...left.keys()]}`);
    },
  };
}

function open(uri: string) {
  const url = new URL(uri);
  if (url.pathname !== '' && url.pathname !== '/') throw new Error(`the link has a path: ${uri}`);
  const common = {
    name: decodeURIComponent(url.hash.slice(1)),
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(url.port),
  };
  // URLSearchParams would read + as a space, and apps do not agree on that. So a + is refused.
  if (url.search.includes('+')) throw new Error('the link has a + that is not percent-encoded');
  return {
    common,
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    query: createQuery([...url.searchParams]),
  };
}
