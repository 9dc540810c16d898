import { z } from 'zod';
import { parseTrustedProxies } from './client-address.ts';
import { hiddenFault } from './text.ts';

const port = (fallback: number, about: string) =>
  z.coerce.number().int().min(1).max(65_535).default(fallback).describe(about);
const count = (fallback: number, min: number, max: number, about: string) =>
  z.coerce.number().int().min(min).max(max).default(fallback).describe(about);
const url = (protocols: RegExp, about: string) =>
  z.url({ protocol: protocols }).optional().describe(about);
const flag = (fallback: 'true' | 'false', about: string) =>
  z.enum(['true', 'false']).default(fallback).describe(about);

const http = {
  CORE_HOST: z.string().default('127.0.0.1').describe('Address that the HTTP server listens on.'),
  CORE_PORT: port(8080, 'Port of the HTTP server.'),
  CORE_ADMIN_HOST: z
    .string()
    .default('127.0.0.1')
    .describe('Address that serves /metrics, /healthz and the full /readyz.'),
  CORE_ADMIN_PORT: port(8081, 'Port of /metrics, /healthz and the full /readyz.'),
  CORE_TRUSTED_PROXIES: z
    .string()
    .max(4_096)
    .superRefine((value, issues) => {
      const parsed = parseTrustedProxies(value);
      if (parsed.outcome === 'parsed') return;
      const message = `"${parsed.entry}" is not an address, and not a prefix like 10.0.0.0/8`;
      issues.addIssue({ code: 'custom', message });
    })
    .default('')
    .describe(
      'Addresses and prefixes of proxies whose X-Forwarded-For counts, separated by commas.',
    ),
  CORE_API_PROCESSES: count(1, 1, 64, 'HTTP processes that share the ports.'),
  CORE_BODY_BYTES_MAX: count(
    4_194_304,
    1_024,
    67_108_864,
    'Largest body in bytes, before and after decompression.',
  ),
  CORE_BODY_ENTRIES_MAX: count(10_000, 1, 100_000, 'Most entries, items or events in a body.'),
  CORE_BODY_SECONDS_MAX: count(30, 1, 600, 'Longest time in which a body may arrive.'),
};

const embedded = {
  CORE_DATA_DIR: z
    .string()
    .default('.core')
    .describe('Where the embedded servers keep their data.'),
  CORE_CLICKHOUSE_PORT: port(8123, 'Port of the embedded ClickHouse HTTP interface.'),
  CORE_CLICKHOUSE_HOSTS: z
    .string()
    .regex(/^[a-z0-9.-]{1,253}(,[a-z0-9.-]{1,253}){0,15}$/i, 'host names, separated by commas')
    .optional()
    .describe(
      'Host names that requests to the embedded ClickHouse may use, in addition to localhost.',
    ),
  CORE_POSTGRES_PORT: port(15_432, 'Port of the embedded Postgres.'),
  CORE_REDIS_PORT: port(16_379, 'Port of the embedded Redis.'),
};

const stores = {
  DATABASE_URL: url(/^postgres(ql)?$/, 'An external Postgres, in place of the embedded one.'),
  REDIS_URL: url(/^rediss?$/, 'An external Redis, in place of the embedded one.'),
  CLICKHOUSE_URL: url(
    /^https?$/,
    'An external ClickHouse (its HTTP interface; the path is the database), in place of the embedded one.',
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
};

const spool = {
  CORE_SPOOL_SHARDS: count(1, 1, 64, 'Shards: Redis streams per kind. Each node has one shard.'),
  CORE_SPOOL_BYTES_MAX: count(
    1_073_741_824,
    1_048_576,
    1_099_511_627_776,
    'Bound of the backlog of a stream in bytes. Past it, posts get a 503.',
  ),
  CORE_LATE_DAYS: count(
    60,
    1,
    36_500,
    'A post with a row older than this many days goes to a late stream.',
  ),
  CORE_LATE_INTERVAL_MS: count(
    30_000,
    50,
    600_000,
    'How often a worker looks for new rows in late streams.',
  ),
  CORE_IDEMPOTENCY_SECONDS: count(
    86_400,
    1,
    604_800,
    'Seconds for which Core recognises a post without a number by its body or key, at least.',
  ),
};

const load = {
  CORE_LOAD_INTERVAL_MS: count(
    500,
    50,
    60_000,
    'How often a worker looks for new rows in each usual stream.',
  ),
  CORE_SEGMENT_ROWS_MAX: count(500_000, 1_000, 1_000_000, 'Most rows in a segment.'),
  CORE_SETTLE_MS_MIN: count(
    0,
    0,
    60_000,
    'Shortest time for which segments are gathered into a batch before it is settled.',
  ),
  CORE_POISON_ATTEMPTS: count(
    5,
    1,
    1_000,
    'A segment is bisected once ClickHouse has refused it for its data this many times.',
  ),
  CORE_SEGMENTS_KEPT_DAYS: count(
    90,
    0,
    36_500,
    'Days that settled segments are kept after an audit without a difference; 0 keeps them for ever.',
  ),
};

const nodes = {
  CORE_REGISTRATION_SECONDS: count(86_400, 60, 2_592_000, 'How long a registration code is valid.'),
  CORE_REGISTRATION_FAILURES_MAX: count(
    20,
    1,
    10_000,
    'Failed registrations that an address may make in a minute.',
  ),
  CORE_NODE_ERRORS_MAX: count(60, 1, 10_000, 'Error reports that a node may make in a minute.'),
  CORE_NODE_STALE_SECONDS: count(
    30,
    1,
    86_400,
    'A node is stale if its last heartbeat is older than this.',
  ),
  CORE_NODE_OFFLINE_SECONDS: count(
    90,
    1,
    86_400,
    'A node is offline if its last heartbeat is older than this.',
  ),
  CORE_NODE_ROLLBACK: flag(
    'true',
    'Whether Core rolls a node back by itself if the node refuses its newest settings.',
  ),
  CORE_XRAY: z
    .string()
    .max(4_096)
    .optional()
    .describe('An Xray by which commands test configurations; if not set, xray on the PATH.'),
};

const events = {
  CORE_EVENT_DAYS: count(90, 1, 3_650, 'How long events of subscriptions are kept.'),
  CORE_WEBHOOK_URL: url(
    /^https?$/,
    'Where Core sends events of subscriptions; see docs/webhooks.md.',
  ),
  CORE_WEBHOOK_SECRET: z
    .string()
    .min(16)
    .max(256)
    .optional()
    .describe('Signs these events. Required with CORE_WEBHOOK_URL.'),
};

const pages = {
  CORE_SUBSCRIPTION_PAGES: flag(
    'false',
    'Serve GET /sub/TOKEN, where client apps fetch their links; see docs/subscription-pages.md.',
  ),
  CORE_PAGE_URL: url(
    /^https?$/,
    'Where client apps reach the API, like https://core.example.net; commands print addresses with it.',
  ),
  CORE_PAGE_TITLE: z
    .string()
    .max(64)
    .refine((given) => hiddenFault(given) === undefined, 'must hold readable characters only')
    .default('Core')
    .describe('What client apps call the list of links.'),
  CORE_PAGE_UPDATE_HOURS: count(12, 1, 8_760, 'How often client apps should fetch their links.'),
  CORE_PAGE_REQUESTS_MAX: count(
    30,
    1,
    100_000,
    'Requests for one page that each HTTP process answers in a minute.',
  ),
  CORE_PAGE_ADDRESS_REQUESTS_MAX: count(
    600,
    1,
    1_000_000,
    'Requests for pages from one address that each HTTP process answers in a minute.',
  ),
};

const everyProcess = {
  CORE_LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('Least severe level that is logged.'),
  CORE_STOP_SECONDS_MAX: count(9, 1, 60, 'Longest time that a clean stop may take.'),
  CORE_FAILPOINT_URL: z
    .url({ protocol: /^http$/, hostname: /^(127\.0\.0\.1|localhost|\[::1\])$/ })
    .optional()
    .describe(
      'Only for the fault suite, which Core then asks at every step. Never set it otherwise.',
    ),
};

/**
 * Every setting, by the name of its environment variable. `.env.example` lists the same ones, and a test
 * compares them. An empty variable counts as not set.
 */
export const settingsSchema = z.object({
  ...http,
  ...embedded,
  ...stores,
  ...spool,
  ...load,
  ...nodes,
  ...events,
  ...pages,
  ...everyProcess,
});

export type Settings = z.output<typeof settingsSchema>;

/** Settings that hold a secret, or a URL that may have a password in it. */
export const settingsWithSecrets = [
  'DATABASE_URL',
  'REDIS_URL',
  'CLICKHOUSE_URL',
  'CORE_WEBHOOK_URL',
  'CORE_WEBHOOK_SECRET',
] as const satisfies readonly (keyof typeof settingsSchema.shape)[];
