import { z } from 'zod';
import { hostName, httpPath, port, publicHost } from './addresses.ts';
import { fingerprint } from './tls.ts';
import { isX25519Key } from './x25519.ts';

// The XHTTP transport. Field names and checks are those of Xray 26.7.28 (SplitHTTPConfig); where a field
// belongs to one side only, the lists at the end say so.

const int32Max = 2_147_483_647;
const whole = z.int().min(0).max(int32Max);
/** A whole number, or two as `100-1000`. */
const range = z.union([
  whole,
  z
    .string()
    .regex(/^\d{1,9}(-\d{1,9})?$/, 'Must be a whole number or a range like 100-1000')
    .refine(inOrder, 'Must have the smaller number first'),
]);

export function boundsOf(given: number | string): [from: number, to: number] {
  const [from = 0, to = from] = String(given).split('-').map(Number);
  return [from, to];
}

function inOrder(given: string): boolean {
  const [from, to] = boundsOf(given);
  return from <= to;
}

const headers = z
  .record(
    z.string().regex(/^[A-Za-z0-9-]{1,64}$/, 'Must be the name of a header'),
    z
      .string()
      .max(1_024)
      .regex(/^[ -~]*$/, 'Must hold printable ASCII only'),
  )
  .refine(
    (given) => Object.keys(given).every((name) => name.toLowerCase() !== 'host'),
    'Cannot hold Host: set host beside path',
  );
/** The name of a header, a cookie or a parameter. */
const key = z.string().regex(/^[\w-]{1,64}$/, 'Must be letters, digits, _ and - only');
const placement = z.enum(['path', 'cookie', 'header', 'query']);

const xmux = z
  .strictObject({
    maxConcurrency: range.optional(),
    maxConnections: range.optional(),
    cMaxReuseTimes: range.optional(),
    hMaxRequestTimes: range.optional(),
    hMaxReusableSecs: range.optional(),
    hKeepAlivePeriod: z.int().min(-1).max(int32Max).optional(),
  })
  .refine(
    ({ maxConnections = 0, maxConcurrency = 0 }) =>
      boundsOf(maxConnections)[1] === 0 || boundsOf(maxConcurrency)[1] === 0,
    'maxConnections does not go with maxConcurrency',
  );

/** Where a client downloads, if that is another way than the one it uploads on. */
const downloadSettings = z.strictObject({
  address: publicHost,
  port,
  network: z.literal('xhttp').default('xhttp'),
  security: z.enum(['none', 'tls', 'reality']).default('tls'),
  tlsSettings: z
    .strictObject({
      serverName: hostName.optional(),
      alpn: z
        .array(z.enum(['h3', 'h2', 'http/1.1']))
        .min(1)
        .max(3)
        .optional(),
      fingerprint: fingerprint.optional(),
      pinnedPeerCertSha256: z
        .string()
        .regex(/^[0-9a-f]{64}(,[0-9a-f]{64}){0,7}$/, 'Must be SHA-256 in 64 hex digits')
        .optional(),
    })
    .optional(),
  realitySettings: z
    .strictObject({
      serverName: hostName,
      fingerprint: fingerprint.default('chrome'),
      password: z.string().refine(isX25519Key, 'Must be 32 bytes in base64url, 43 characters'),
      shortId: z
        .string()
        .regex(/^([0-9a-f]{2}){0,8}$/, 'Must be up to 16 hex digits, an even count')
        .default(''),
    })
    .optional(),
  xhttpSettings: z.strictObject({ path: httpPath, host: hostName.optional() }).optional(),
});

const extra = z.strictObject({
  headers: headers.optional(),
  xPaddingBytes: range.refine((given) => boundsOf(given)[0] > 0, 'Must be above 0').optional(),
  xPaddingObfsMode: z.boolean().optional(),
  xPaddingKey: key.optional(),
  xPaddingHeader: key.optional(),
  xPaddingPlacement: z.enum(['cookie', 'header', 'query', 'queryInHeader']).optional(),
  xPaddingMethod: z.enum(['repeat-x', 'tokenish']).optional(),
  uplinkHTTPMethod: z
    .string()
    .regex(/^[A-Z]{1,20}$/, 'Must be a method in capitals, like POST')
    .optional(),
  sessionIDPlacement: placement.optional(),
  sessionIDKey: key.optional(),
  sessionIDTable: z
    .string()
    .regex(/^[!-~]{1,128}$/, 'Must hold printable ASCII only')
    .optional(),
  sessionIDLength: range.optional(),
  seqPlacement: placement.optional(),
  seqKey: key.optional(),
  uplinkDataPlacement: z.enum(['auto', 'body', 'cookie', 'header']).optional(),
  uplinkDataKey: key.optional(),
  uplinkChunkSize: range.optional(),
  noGRPCHeader: z.boolean().optional(),
  noSSEHeader: z.boolean().optional(),
  scMaxEachPostBytes: range.refine((given) => boundsOf(given)[0] > 0, 'Must be above 0').optional(),
  scMinPostsIntervalMs: range.optional(),
  scMaxBufferedPosts: whole.optional(),
  scStreamUpServerSecs: range.optional(),
  serverMaxHeaderBytes: whole.optional(),
  xmux: xmux.optional(),
  downloadSettings: downloadSettings.optional(),
});

type Extra = z.output<typeof extra>;

export const xhttp = z
  .strictObject({
    path: httpPath.default('/'),
    mode: z.enum(['auto', 'packet-up', 'stream-up', 'stream-one']).default('auto'),
    host: hostName.optional(),
    extra: extra.optional(),
  })
  .superRefine(({ mode, extra }, context) => {
    for (const [name, message] of faultsOf(mode, extra ?? {})) {
      context.addIssue({ code: 'custom', path: ['extra', name], message });
    }
  });

/** What Xray refuses in an `extra` whose single fields are right. */
function faultsOf(mode: string, given: Extra): [name: keyof Extra, message: string][] {
  const faults: [name: keyof Extra, message: string][] = [];
  if (mode !== 'packet-up') {
    if (given.uplinkDataPlacement === 'cookie' || given.uplinkDataPlacement === 'header') {
      faults.push(['uplinkDataPlacement', 'Must be auto or body unless mode is packet-up']);
    }
    if (given.uplinkHTTPMethod === 'GET') {
      faults.push(['uplinkHTTPMethod', 'Can be GET only if mode is packet-up']);
    }
  }
  if (mode === 'stream-one' && given.downloadSettings !== undefined) {
    faults.push(['downloadSettings', 'Does not go with mode stream-one']);
  }
  const [lengthMin] = boundsOf(given.sessionIDLength ?? 0);
  if (given.sessionIDTable !== undefined && !isRoomy(given.sessionIDTable, lengthMin)) {
    faults.push(['sessionIDLength', 'Is too short for sessionIDTable: 2^31 ids must be possible']);
  }
  return faults;
}

/** How many characters the tables have that Xray knows by a name. */
const namedTables: Readonly<Record<string, number>> = {
  ALPHABET: 26,
  Alphabet: 52,
  BASE36: 36,
  Base62: 62,
  HEX: 16,
  alphabet: 26,
  base36: 36,
  hex: 16,
  number: 10,
};

function isRoomy(table: string, lengthMin: number): boolean {
  return lengthMin > 0 && (namedTables[table] ?? table.length) ** lengthMin >= 2 ** 31;
}

const ofServerOnly: readonly (keyof Extra)[] = [
  'noSSEHeader',
  'scMaxBufferedPosts',
  'scStreamUpServerSecs',
  'serverMaxHeaderBytes',
];
/** A server would connect to nobody by them, and Xray checks them all the same. */
const ofClientOnly: readonly (keyof Extra)[] = ['downloadSettings', 'xmux', 'headers'];

/** What a server needs of `extra`, also by former names. Undefined if that is nothing. */
export function extraOfServer(given: Extra | undefined): Record<string, unknown> | undefined {
  const kept = without(given, ofClientOnly);
  return kept === undefined ? undefined : withFormerNames(kept);
}

/** Xray has the first name by 26.7.11, had the second one up to 26.6.1, and ignores a name that it does not know. */
const formerNames = { sessionIDPlacement: 'sessionPlacement', sessionIDKey: 'sessionKey' } as const;

/** Says each field by its former name, too, so that client and server agree whatever their versions. */
export function withFormerNames(extra: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const former = Object.entries(formerNames).flatMap(([name, before]) =>
    extra[name] === undefined ? [] : [[before, extra[name]] as const],
  );
  return { ...extra, ...Object.fromEntries(former) };
}

/**
 * The path that a client asks for. If neither session nor sequence is in it, Xray by 26.7.11 asks for the path as it
 * is, and Xray up to 26.6.1 expects a slash at its end. A path with the slash works with both.
 */
export function pathOfClient(path: string, given: Extra | undefined): string {
  const { sessionIDPlacement = 'path', seqPlacement = 'path' } = given ?? {};
  if (sessionIDPlacement === 'path' || seqPlacement === 'path') return path;
  const end = path.indexOf('?') === -1 ? path.length : path.indexOf('?');
  const [before, query] = [path.slice(0, end), path.slice(end)];
  return before.endsWith('/') ? path : `${before}/${query}`;
}

/** What a client needs of `extra`. Undefined if that is nothing. */
export function extraOfClient(given: Extra | undefined): Partial<Extra> | undefined {
  return without(given, ofServerOnly);
}

function without(
  given: Extra | undefined,
  left: readonly (keyof Extra)[],
): Partial<Extra> | undefined {
  const kept = Object.entries(given ?? {}).filter(([name, value]) => {
    return value !== undefined && !left.includes(name as keyof Extra);
  });
  return kept.length === 0 ? undefined : (Object.fromEntries(kept) as Partial<Extra>);
}
