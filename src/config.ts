import path from 'node:path';
import { type Settings, settingsSchema } from './environment.ts';
import { CoreError } from './errors.ts';

/** The settings as the rest of Core gets them: grouped by part, with units last in the names. */
export interface Config {
  http: {
    host: string;
    port: number;
    processes: number;
    bodyBytesMax: number;
    bodyEntriesMax: number;
    bodySecondsMax: number;
    /** See parseTrustedProxies in client-address.ts. */
    trustedProxies: string;
  };
  /** The operators' listener: metrics and the state of the stores, without a key. */
  admin: { host: string; port: number };
  embedded: {
    /** Absolute path. */
    dataDir: string;
    clickhousePort: number;
    clickhouseHosts: string[];
    postgresPort: number;
    redisPort: number;
    /** True if no URL is set, so that `core up` starts this server itself. */
    postgres: boolean;
    redis: boolean;
    clickhouse: boolean;
  };
  /** URLs of embedded servers have no passwords: secrets.ts adds them. */
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
    /** Backlog bound of a late stream, a part of the usual one's. */
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
    /** 0 keeps them for ever. */
    segmentsKeptDays: number;
  };
  nodes: {
    registrationSeconds: number;
    registrationFailuresMax: number;
    errorsMax: number;
    staleSeconds: number;
    offlineSeconds: number;
    /** Whether Core rolls back a node by itself that refuses its newest settings. */
    rollsBack: boolean;
    /** The program that tests configurations; undefined for `xray` on the PATH. */
    xray: string | undefined;
  };
  events: {
    days: number;
    /** Undefined if events are sent nowhere. */
    webhook: { url: string; secret: string } | undefined;
  };
  pages: {
    areServed: boolean;
    /** Where client apps reach the API, without a slash at its end. */
    url: string;
    title: string;
    updateHours: number;
    /** Each is for a minute and an HTTP process. */
    requestsMax: number;
    addressRequestsMax: number;
  };
  logLevel: Settings['CORE_LOG_LEVEL'];
  stopSecondsMax: number;
  /** Only the fault suite sets it; see failpoints.ts. */
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
    faults.push('CORE_WEBHOOK_SECRET: needed if CORE_WEBHOOK_URL is set');
  }
  // Listeners share ports on purpose (SO_REUSEPORT), so nothing else would notice.
  if (parsed.success && parsed.data.CORE_ADMIN_PORT === parsed.data.CORE_PORT) {
    faults.push('CORE_ADMIN_PORT: must differ from CORE_PORT');
  }
  const fault = webhookUrlFault(given['CORE_WEBHOOK_URL']);
  if (fault !== undefined) faults.push(`CORE_WEBHOOK_URL: ${fault}`);
  if (!parsed.success || faults.length > 0) {
    throw new CoreError('INVALID_SETTINGS', `Invalid settings: ${faults.join('; ')}`);
  }
  return toConfig(parsed.data);
}

/** User and password become Basic authentication, so the user has no colon and both have valid escapes. */
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

/** A late stream may hold a quarter of what a usual one may. */
const lateBytesDivisor = 4;

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
      lateBytesMax: Math.floor(s.CORE_SPOOL_BYTES_MAX / lateBytesDivisor),
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
      // If the offline limit is below the stale one, no node is ever stale. That is no fault.
      staleSeconds: Math.min(s.CORE_NODE_STALE_SECONDS, s.CORE_NODE_OFFLINE_SECONDS),
      offlineSeconds: s.CORE_NODE_OFFLINE_SECONDS,
      rollsBack: s.CORE_NODE_ROLLBACK === 'true',
      xray: s.CORE_XRAY,
    },
    events: {
      days: s.CORE_EVENT_DAYS,
      webhook:
        s.CORE_WEBHOOK_URL === undefined || s.CORE_WEBHOOK_SECRET === undefined
          ? undefined
          : { url: s.CORE_WEBHOOK_URL, secret: s.CORE_WEBHOOK_SECRET },
    },
    pages: {
      areServed: s.CORE_SUBSCRIPTION_PAGES === 'true',
      url: (s.CORE_PAGE_URL ?? `http://${s.CORE_HOST}:${s.CORE_PORT}`).replace(/\/+$/, ''),
      title: s.CORE_PAGE_TITLE,
      updateHours: s.CORE_PAGE_UPDATE_HOURS,
      requestsMax: s.CORE_PAGE_REQUESTS_MAX,
      addressRequestsMax: s.CORE_PAGE_ADDRESS_REQUESTS_MAX,
    },
    logLevel: s.CORE_LOG_LEVEL,
    stopSecondsMax: s.CORE_STOP_SECONDS_MAX,
    failpointUrl: s.CORE_FAILPOINT_URL,
  };
}
