import { z } from 'zod';
import { isAddress } from '../../contract/fields.ts';
import { addressList, domainList } from '../routing/address-list.ts';
import {
  domainStrategy,
  headers,
  host,
  integer,
  level,
  networks,
  port,
  ports,
  positiveRange,
  range,
  someText,
  tag,
  text,
  word,
} from '../routing/values.ts';
import {
  shadowsocks2022Fault,
  shadowsocks2022KeyBytes,
  userId,
  vlessEncryption,
  wireGuardKey,
} from './keys.ts';

// The `settings` of Xray's outbounds, by protocol: https://xtls.github.io/en/config/outbounds/ and
// infra/conf of Xray 26.7.28. Fields that only older versions read are here, too.

type Context = z.core.$RefinementCtx;
type Shape = z.core.$ZodLooseShape;

/** `packets` of a fragment: the TLS hello, or which packets. */
const packets = z.union([word(['tlshello', '']), positiveRange.pipe(z.string())], {
  error: 'Must be tlshello, or packets like "1-3"',
});

const fragment = z.strictObject({
  packets: packets.optional(),
  length: positiveRange,
  interval: range,
  maxSplit: range.optional(),
});

const noise = z
  .strictObject({
    type: z.enum(['rand', 'str', 'hex', 'base64']),
    packet: z.union([text, z.int().min(1)]).transform(String),
    delay: range.optional(),
    applyTo: word(['ip', 'all', 'ipv4', 'ipv6']).optional(),
  })
  .superRefine(({ type, packet }, context) => {
    const shapes = {
      rand: [/^[1-9]\d{0,8}(-[1-9]\d{0,8})?$/, 'a size or a range, like 10-20'],
      str: [/^/, 'text'],
      hex: [/^([0-9a-f]{2})*$/i, 'hex digits, an even count'],
      base64: [/^[A-Za-z0-9+/_-]*={0,2}$/, 'base64'],
    } as const;
    const [shape, what] = shapes[type];
    if (shape.test(packet.trim())) return;
    context.addIssue({ code: 'custom', path: ['packet'], message: `Must be ${what}` });
  });

const redirect = z.string().refine((given) => {
  const parts = /^(\[[^\]]+\]|[^:[\]]*):(\d{1,5})$/.exec(given);
  if (parts === null || Number(parts[2]) > 65_535) return false;
  return parts[1] === '' || host.safeParse(parts[1]).success;
}, 'Must be host:port, or :port');

const freedom = z.strictObject({
  targetStrategy: domainStrategy.optional(),
  domainStrategy: domainStrategy.optional(),
  redirect: redirect.optional(),
  userLevel: level.optional(),
  proxyProtocol: z.int().min(0).max(2).optional(),
  fragment: fragment.optional(),
  noises: z.array(noise).max(64).optional(),
  finalRules: z
    .array(
      z.strictObject({
        action: word(['allow', 'block']),
        network: networks.optional(),
        port: ports.optional(),
        ip: addressList.optional(),
        blockDelay: range.optional(),
      }),
    )
    .max(1_000)
    .optional(),
});

const blackhole = z.strictObject({
  response: z.strictObject({ type: word(['none', 'http']) }).optional(),
});

const queryTypes = z.union([z.int().min(0).max(65_535), ports]);
const dns = z
  .strictObject({
    rewriteNetwork: word(['tcp', 'udp']).optional(),
    rewriteAddress: host.optional(),
    rewritePort: port.optional(),
    network: word(['tcp', 'udp']).optional(),
    address: host.optional(),
    port: port.optional(),
    userLevel: level.optional(),
    rules: z
      .array(
        z.strictObject({
          action: word(['direct', 'drop', 'return', 'hijack']),
          qType: queryTypes.optional(),
          domain: domainList.optional(),
          rCode: z.int().min(0).max(65_535).optional(),
        }),
      )
      .max(1_000)
      .optional(),
    nonIPQuery: z.enum(['reject', 'drop', 'skip']).optional(),
    blockTypes: z.array(z.int().min(0).max(65_535)).max(1_000).optional(),
  })
  .superRefine((given, context) => {
    const legacy = ['nonIPQuery', 'blockTypes'].filter((name) => name in given);
    if (given.rules === undefined || legacy.length === 0) return;
    fault(context, ['rules'], `Does not go with ${legacy.join(' and ')}`);
  });

const loopback = z.strictObject({
  inboundTag: tag,
  sniffing: z
    .strictObject({
      enabled: z.boolean().optional(),
      destOverride: z
        .array(word(['http', 'tls', 'https', 'ssl', 'quic', 'fakedns', 'fakedns+others']))
        .max(7)
        .optional(),
      domainsExcluded: domainList.optional(),
      ipsExcluded: addressList.optional(),
      metadataOnly: z.boolean().optional(),
      routeOnly: z.boolean().optional(),
    })
    .optional(),
});

const server = { address: host, port };
const person = { level: level.optional(), email: text.optional() };
const account = { user: someText.optional(), pass: text.optional(), ...person };

/** HTTP and SOCKS: a server with at most one account. */
const loginForms = {
  flat: { ...server, ...account },
  server: {
    ...server,
    users: z
      .array(z.strictObject({ ...account, user: someText, pass: text }))
      .max(1)
      .optional(),
  },
};

const socks = oneServer({}, loginForms.flat, 'servers', loginForms.server);
const http = oneServer(
  { headers: headers.optional() },
  loginForms.flat,
  'servers',
  loginForms.server,
);

const oldMethods = [
  'aes-128-gcm',
  'aead_aes_128_gcm',
  'aes-256-gcm',
  'aead_aes_256_gcm',
  'chacha20-poly1305',
  'aead_chacha20_poly1305',
  'chacha20-ietf-poly1305',
  'xchacha20-poly1305',
  'aead_xchacha20_poly1305',
  'xchacha20-ietf-poly1305',
] as const;
const newMethods = Object.keys(shadowsocks2022KeyBytes);
const shadowsocksServer = {
  ...server,
  ...person,
  method: z.union([word(oldMethods), z.enum(newMethods)], {
    error: `Must be one of ${[...newMethods, ...oldMethods].join(', ')}`,
  }),
  password: z.string().min(1).max(1_024),
  /** Read by Xray before 26.7. */
  uot: z.boolean().optional(),
  uotVersion: z.int().min(1).max(2).optional(),
};
const shadowsocks = oneServer(
  {},
  shadowsocksServer,
  'servers',
  shadowsocksServer,
  (one, at, context) => {
    const { method, password } = one as { method: string; password: string };
    const message = shadowsocks2022Fault(method, password);
    if (message !== undefined) fault(context, [...at, 'password'], message);
  },
);

const trojanServer = { ...server, ...person, password: z.string().min(1).max(1_024) };
const trojan = oneServer({}, trojanServer, 'servers', trojanServer);

const seed = z.array(integer).max(16);
const vlessUser = {
  id: userId,
  encryption: vlessEncryption,
  flow: z.enum(['', 'xtls-rprx-vision', 'xtls-rprx-vision-udp443']).optional(),
  testpre: integer.optional(),
  testseed: seed.optional(),
  ...person,
};
const vless = oneServer(
  {},
  { ...server, ...vlessUser, reverse: z.strictObject({ tag }).optional() },
  'vnext',
  { ...server, users: oneUser({ ...vlessUser, alterId: unused(0), security: unused('auto') }) },
);

const vmessUser = {
  id: userId,
  security: word(['auto', 'aes-128-gcm', 'chacha20-poly1305']).optional(),
  experiments: text.optional(),
  ...person,
};
const vmess = oneServer({}, { ...server, ...vmessUser, alterId: unused(0) }, 'vnext', {
  ...server,
  users: oneUser({ ...vmessUser, alterId: unused(0) }),
});

const bits = (given: string): boolean => {
  const [address = '', length, ...more] = given.split('/');
  if (!isAddress(address) || more.length > 0) return false;
  if (length === undefined) return true;
  return /^(0|[1-9]\d{0,2})$/.test(length) && Number(length) <= (address.includes(':') ? 128 : 32);
};
const addressOrPrefix = z.string().refine(bits, 'Must be an address or a prefix, like 10.0.0.2/32');
const prefix = addressOrPrefix.refine((given) => given.includes('/'), 'Must be a prefix');
const endpoint = redirect.refine((given) => !given.startsWith(':'), 'Must be host:port');

const wireguard = z.strictObject({
  secretKey: wireGuardKey,
  address: z
    .array(addressOrPrefix)
    .min(1)
    .max(64)
    .refine(areDistinct, 'Must not have an address twice')
    .optional(),
  peers: z
    .array(
      z.strictObject({
        publicKey: wireGuardKey,
        preSharedKey: wireGuardKey.optional(),
        endpoint,
        keepAlive: z.int().min(0).max(65_535).optional(),
        allowedIPs: z.array(prefix).min(1).max(1_000).optional(),
        level: level.optional(),
        email: text.optional(),
      }),
    )
    .min(1)
    .max(64),
  mtu: z.int().min(576).max(65_535).optional(),
  reserved: z
    .union(
      [
        z.array(z.int().min(0).max(255)).refine((given) => [0, 3].includes(given.length)),
        z.string().regex(/^([A-Za-z0-9+/]{4})?$/),
      ],
      { error: 'Must be three bytes, as numbers or in base64' },
    )
    .optional(),
  domainStrategy: word(domainForces()).optional(),
  noKernelTun: z.boolean().optional(),
  /** Read by Xray before 26.7. */
  workers: integer.optional(),
});

function areDistinct(given: readonly string[]): boolean {
  return new Set(given.map((one) => one.split('/')[0]?.toLowerCase())).size === given.length;
}

function domainForces(): readonly [string, ...string[]] {
  return ['ForceIP', 'ForceIPv4', 'ForceIPv6', 'ForceIPv4v6', 'ForceIPv6v4'];
}

const hysteria = z.strictObject({ version: z.literal(2), ...server });

export const outboundSettingsSchemas = {
  blackhole,
  dns,
  freedom,
  http,
  hysteria,
  loopback,
  shadowsocks,
  socks,
  trojan,
  vless,
  vmess,
  wireguard,
};

/** A field that other programs write and that Xray does not read, with the value that they write. */
function unused<const T extends string | number>(value: T) {
  return z.literal(value).optional();
}

function oneUser(user: Shape) {
  return z
    .array(z.strictObject(user))
    .length(1, 'Must have exactly one user: a second needs an outbound of its own');
}

/**
 * Xray's two forms of an outbound to one server: the server's fields in the settings themselves, or in a list
 * with one element.
 * @param check What must hold for the server beyond its fields.
 */
function oneServer(
  common: Shape,
  flat: Shape,
  listName: 'servers' | 'vnext',
  listed: Shape,
  check?: (one: Record<string, unknown>, at: string[], context: Context) => void,
) {
  const flatForm = z.strictObject({ ...common, ...flat });
  const list = z
    .array(z.strictObject(listed))
    .length(
      1,
      'Must have exactly one server: a second needs an outbound of its own, and a balancer',
    );
  const listForm = z.strictObject({ ...common, [listName]: list });
  return z.record(z.string(), z.unknown()).superRefine((given, context) => {
    const isList = listName in given;
    const parsed = (isList ? listForm : flatForm).safeParse(given);
    for (const issue of parsed.error?.issues ?? []) context.addIssue({ ...issue } as never);
    if (!parsed.success || check === undefined) return;
    if (!isList) check(given, [], context);
    else
      for (const one of given[listName] as Record<string, unknown>[])
        check(one, [listName, '0'], context);
  });
}

function fault(context: Context, path: string[], message: string): void {
  context.addIssue({ code: 'custom', path, message });
}
