import path from 'node:path';
import { z } from 'zod';
import { parseTrustedProxies } from './client-address.ts';
import { CoreError } from './errors.ts';

const port = (fallback: number, about: string) =>
  z.coerce.number().int().min(1).max(65_535).default(fallback).describe(about);
const count = (fallback: number, min: number, max: number, about: string) =>
  z.coerce.number().int().min(min).max(max).default(fallback).describe(about);
const url = (protocols: RegExp, about: string) =>
  z.url({ protocol: protocols }).optional().describe(about);
const flag = (fallback: 'true' | 'false', about: string) =>
  z.enum(['true', 'false']).default(fallback).describe(about);

/**
 * Every setting, by the name of its environment variable. `.env.example` lists the same ones; a
 * test holds the two together. An empty variable counts as one that is not set.
 */
export const settingsSchema = z.object({
  CORE_HOST: z.string().default('127.0.0.1').describe('Address that the HTTP server listens on.'),
  CORE_PORT: port(8080, 'Port of the HTTP server.'),
  CORE_ADMIN_HOST: z
    .string()
    .default('127.0.0.1')
    .describe('Address that /metrics, /healthz and the full /readyz are served on.'),
  CORE_ADMIN_PORT: port(8081, 'Port of /metrics, /healthz and the full /readyz.'),
  CORE_TRUSTED_PROXIES: z
    .string()
    .max(4_096)
    .superRefine((value, issues) => {
      const parsed = parseTrustedProxies(value);
      if (parsed.outcome === 'parsed') return;
      const message = `"${parsed.entry}" is no address, and no prefix like 10.0.0.0/8`;
      issues.addIssue({ code: 'custom', message });
    })
    .default('')
    .describe('Proxies whose X-Forwarded-For counts: addresses and prefixes, separated by commas.'),
  CORE_API_PROCESSES: count(1, 1, 64, 'HTTP processes that share the ports.'),
  CORE_DATA_DIR: z
    .string()
    .default('.core')
    .describe('Where the embedded servers keep their data.'),
  CORE_CLICKHOUSE_PORT: port(8123, 'Port of the embedded ClickHouse HTTP interface.'),
  CORE_CLICKHOUSE_HOSTS: z
    .string()
    .regex(/^[a-z0-9.-]{1,253}(,[a-z0-9.-]{1,253}){0,15}$/i, 'host names, separated by commas')
    .optional()
    .describe('Names under which the embedded ClickHouse answers, in addition to localhost.'),
  CORE_POSTGRES_PORT: port(15_432, 'Port of the embedded Postgres.'),
  CORE_REDIS_PORT: port(16_379, 'Port of the embedded Redis.'),
  DATABASE_URL: url(/^postgres(ql)?$/, 'A real Postgres to use in place of the embedded one.'),
  REDIS_URL: url(/^rediss?$/, 'A real Redis to use in place of the embedded one.'),
  CLICKHOUSE_URL: url(
    /^https?$/,
    'A real ClickHouse (HTTP interface, the path is the database) in place of the embedded one.',
  ),
  CORE_REDIS_PREFIX: z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]{0,31}$/)
    .default('core')
    .describe('First part of every Redis key.'),
  CORE_REDIS_REQUIRE_AOF: flag(
    'true',
    'Refuse to serve from a Redis that does not fsync before it answers.',
  ),
  CORE_LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('Least severe level that is logged.'),
  CORE_BODY_BYTES_MAX: count(4_194_304, 1_024, 67_108_864, 'Largest body, compressed or not.'),
  CORE_BODY_ENTRIES_MAX: count(10_000, 1, 100_000, 'Most entries, items or events in a body.'),
  CORE_BODY_SECONDS_MAX: count(30, 1, 600, 'Longest time that a body may take to arrive.'),
  CORE_SPOOL_SHARDS: count(
    1,
    1,
    64,
    'Shards: how many Redis streams each kind of row is spread over, by node.',
  ),
  CORE_SPOOL_BYTES_MAX: count(
    1_073_741_824,
    1_048_576,
    1_099_511_627_776,
    'Bytes of backlog that a stream may hold; past it nodes get a 503.',
  ),
  CORE_LATE_DAYS: count(
    60,
    1,
    36_500,
    'Age in days past which a row is late: its post goes through a stream of its own.',
  ),
  CORE_LATE_INTERVAL_MS: count(
    30_000,
    50,
    600_000,
    'How often a worker looks at late streams for new rows.',
  ),
  CORE_IDEMPOTENCY_SECONDS: count(
    3_600,
    1,
    604_800,
    'Least time that Core keeps an idempotency key; 1.5 times that at most.',
  ),
  CORE_LOAD_INTERVAL_MS: count(
    500,
    50,
    60_000,
    'How often a worker looks at each stream for new rows.',
  ),
  CORE_SEGMENT_ROWS_MAX: count(500_000, 1_000, 1_000_000, 'Most rows in a segment.'),
  CORE_SETTLE_MS_MIN: count(
    0,
    0,
    60_000,
    'Least time that a group gathers segments before it is settled.',
  ),
  CORE_POISON_ATTEMPTS: count(
    5,
    1,
    1_000,
    'From this attempt on, Core looks for the rows that ClickHouse refuses in a segment.',
  ),
  CORE_SEGMENTS_KEPT_DAYS: count(
    90,
    0,
    36_500,
    'Days after which a clean audit deletes settled segments; 0 keeps them for ever.',
  ),
  CORE_REGISTRATION_SECONDS: count(86_400, 60, 2_592_000, 'How long a registration code is valid.'),
  CORE_REGISTRATION_FAILURES_MAX: count(
    20,
    1,
    10_000,
    'Wrong registration codes that an address may send in a minute.',
  ),
  CORE_NODE_ERRORS_MAX: count(60, 1, 10_000, 'Error reports that a node may send in a minute.'),
  CORE_NODE_STALE_SECONDS: count(
    30,
    1,
    86_400,
    'Age of the newest heartbeat past which a node is stale.',
  ),
  CORE_NODE_OFFLINE_SECONDS: count(
    90,
    1,
    86_400,
    'Age of the newest heartbeat past which a node is offline.',
  ),
  CORE_EVENT_DAYS: count(90, 1, 3_650, 'Days that events of subscriptions are kept.'),
  CORE_WEBHOOK_URL: url(
    /^https?$/,
    'Where events of subscriptions are sent; see docs/webhooks.md.',
  ),
  CORE_WEBHOOK_SECRET: z
    .string()
    .min(16)
    .max(256)
    .optional()
    .describe('What the events are signed with; needed with CORE_WEBHOOK_URL.'),
  CORE_STOP_SECONDS_MAX: count(9, 1, 60, 'Longest time that a clean stop may take.'),
  CORE_FAILPOINT_URL: z
    .url({ protocol: /^http$/, hostname: /^(127\.0\.0\.1|localhost|\[::1\])$/ })
    .optional()
    .describe('For the fault suite only, never set it otherwise: Core asks it at every step.'),
});

/** Settings that are or may hold a secret: a URL may have a password in it. */
export const settingsWithSecrets = [
  'DATABASE_URL',
  'REDIS_URL',
  'CLICKHOUSE_URL',
  'CORE_WEBHOOK_URL',
  'CORE_WEBHOOK_SECRET',
] as const satisfies readonly (keyof typeof settingsSchema.shape)[];

export type Settings = z.output<typeof settingsSchema>;

/** What the rest of Core is given: grouped, with units last in the names. */
export interface Config {
  http: {
    host: string;
    port: number;
    processes: number;
    bodyBytesMax: number;
    bodyEntriesMax: number;
    bodySecondsMax: number;
    /** As client-address.ts parses it. */
    trustedProxies: string;
  };
  /** Where metrics and the state of the stores are told, without a key. */
  admin: { host: string; port: number };
  embedded: {
    /** Absolute path. */
    dataDir: string;
    clickhousePort: number;
    clickhouseHosts: string[];
    postgresPort: number;
    redisPort: number;
    /** True where no URL is set, so that `core up` starts this server itself. */
    postgres: boolean;
    redis: boolean;
    clickhouse: boolean;
  };
  /** URLs of embedded servers are without their passwords: secrets.ts adds them. */
  stores: {
    postgresUrl: string;
    redisUrl: string;
    clickhouseUrl: string;
    redisPrefix: string;
    redisRequireAof: boolean;
  };
  spool: {
    shards: number;
    bytesMax: number;
    /** Backlog bound of a late stream: a share of the usual one's. */
    lateBytesMax: number;
    lateDays: number;
    idempotencySeconds: number;
  };
  load: {
    intervalMs: number;
    lateIntervalMs: number;
    segmentRowsMax: number;
    settleMsMin: number;
    poisonAttempts: number;
    /** 0: for ever. */
    segmentsKeptDays: number;
  };
  nodes: {
    registrationSeconds: number;
    registrationFailuresMax: number;
    errorsMax: number;
    staleSeconds: number;
    offlineSeconds: number;
  };
  events: {
    days: number;
    /** Undefined where events are sent nowhere. */
    webhook: { url: string; secret: string } | undefined;
  };
  logLevel: Settings['CORE_LOG_LEVEL'];
  stopSecondsMax: number;
  /** Set by the fault suite only; see failpoints.ts. */
  failpointUrl: string | undefined;
}

/**
 * Reads and validates all settings together.
 * @throws CoreError INVALID_SETTINGS naming every variable at fault, not only the first.
 */
export function readConfig(environment: NodeJS.ProcessEnv): Config {
  const given: Record<string, string> = {};
  for (const name of Object.keys(settingsSchema.shape)) {
    const value = environment[name];
    if (value !== undefined && value !== '') given[name] = value;
  }
  const parsed = settingsSchema.safeParse(given);
  const faults = parsed.success
    ? []
    : parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
  if (given['CORE_WEBHOOK_URL'] !== undefined && given['CORE_WEBHOOK_SECRET'] === undefined) {
    faults.push('CORE_WEBHOOK_SECRET: needed where CORE_WEBHOOK_URL is set');
  }
  // Listeners share ports on purpose (SO_REUSEPORT), so that nothing else would notice.
  if (parsed.success && parsed.data.CORE_ADMIN_PORT === parsed.data.CORE_PORT) {
    faults.push('CORE_ADMIN_PORT: must not be that of CORE_PORT');
  }
  const fault = webhookUrlFault(given['CORE_WEBHOOK_URL']);
  if (fault !== undefined) faults.push(`CORE_WEBHOOK_URL: ${fault}`);
  if (!parsed.success || faults.length > 0) {
    throw new CoreError('INVALID_SETTINGS', `Invalid settings: ${faults.join('; ')}`);
  }
  return toConfig(parsed.data);
}

/** User and password become Basic authentication: no colon in the user, and no broken escape in either. */
function webhookUrlFault(url: string | undefined): string | undefined {
  if (url === undefined || !URL.canParse(url)) return undefined;
  const { username, password } = new URL(url);
  try {
    if (decodeURIComponent(username).includes(':')) return 'its user must not hold a colon';
    decodeURIComponent(password);
  } catch {
    return 'its user or password holds a % that encodes nothing; write %25 for a %';
  }
  return undefined;
}

/** A late stream may hold a quarter of what the usual one may. */
const lateBytesFraction = 4;

function toConfig(s: Settings): Config {
  return {
    http: {
      host: s.CORE_HOST,
      port: s.CORE_PORT,
      processes: s.CORE_API_PROCESSES,
      bodyBytesMax: s.CORE_BODY_BYTES_MAX,
      bodyEntriesMax: s.CORE_BODY_ENTRIES_MAX,
      bodySecondsMax: s.CORE_BODY_SECONDS_MAX,
      trustedProxies: s.CORE_TRUSTED_PROXIES,
    },
    admin: { host: s.CORE_ADMIN_HOST, port: s.CORE_ADMIN_PORT },
    embedded: {
      dataDir: path.resolve(s.CORE_DATA_DIR),
      clickhousePort: s.CORE_CLICKHOUSE_PORT,
      clickhouseHosts: s.CORE_CLICKHOUSE_HOSTS?.split(',') ?? [],
      postgresPort: s.CORE_POSTGRES_PORT,
      redisPort: s.CORE_REDIS_PORT,
      postgres: s.DATABASE_URL === undefined,
      redis: s.REDIS_URL === undefined,
      clickhouse: s.CLICKHOUSE_URL === undefined,
    },
    stores: {
      postgresUrl: s.DATABASE_URL ?? `postgres://core@127.0.0.1:${s.CORE_POSTGRES_PORT}/core`,
      redisUrl: s.REDIS_URL ?? `redis://default@127.0.0.1:${s.CORE_REDIS_PORT}`,
      clickhouseUrl: s.CLICKHOUSE_URL ?? `http://core@127.0.0.1:${s.CORE_CLICKHOUSE_PORT}/core`,
      redisPrefix: s.CORE_REDIS_PREFIX,
      redisRequireAof: s.CORE_REDIS_REQUIRE_AOF === 'true',
    },
    spool: {
      shards: s.CORE_SPOOL_SHARDS,
      bytesMax: s.CORE_SPOOL_BYTES_MAX,
      lateBytesMax: Math.floor(s.CORE_SPOOL_BYTES_MAX / lateBytesFraction),
      lateDays: s.CORE_LATE_DAYS,
      idempotencySeconds: s.CORE_IDEMPOTENCY_SECONDS,
    },
    load: {
      intervalMs: s.CORE_LOAD_INTERVAL_MS,
      lateIntervalMs: s.CORE_LATE_INTERVAL_MS,
      segmentRowsMax: s.CORE_SEGMENT_ROWS_MAX,
      settleMsMin: s.CORE_SETTLE_MS_MIN,
      poisonAttempts: s.CORE_POISON_ATTEMPTS,
      segmentsKeptDays: s.CORE_SEGMENTS_KEPT_DAYS,
    },
    nodes: {
      registrationSeconds: s.CORE_REGISTRATION_SECONDS,
      registrationFailuresMax: s.CORE_REGISTRATION_FAILURES_MAX,
      errorsMax: s.CORE_NODE_ERRORS_MAX,
      // An offline limit below the stale one leaves no room for stale, and is no fault.
      staleSeconds: Math.min(s.CORE_NODE_STALE_SECONDS, s.CORE_NODE_OFFLINE_SECONDS),
      offlineSeconds: s.CORE_NODE_OFFLINE_SECONDS,
    },
    events: {
      days: s.CORE_EVENT_DAYS,
      webhook:
        s.CORE_WEBHOOK_URL === undefined || s.CORE_WEBHOOK_SECRET === undefined
          ? undefined
          : { url: s.CORE_WEBHOOK_URL, secret: s.CORE_WEBHOOK_SECRET },
    },
    logLevel: s.CORE_LOG_LEVEL,
    stopSecondsMax: s.CORE_STOP_SECONDS_MAX,
    failpointUrl: s.CORE_FAILPOINT_URL,
  };
}
