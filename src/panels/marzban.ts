import { z } from 'zod';
import { CoreError } from '../errors.ts';
import type { ResetPeriod } from '../subscriptions/period.ts';
import {
  type AccountLine,
  accessOf,
  type Note,
  type PanelAccount,
  type PanelCredential,
  type PanelFile,
} from './account.ts';
import { byteCount, instant, integer, readJson, readRecord, text } from './fields.ts';
import { readElements } from './json.ts';
import { isSqlite, openSqlite, type SqliteFile, type SqliteRow } from './sqlite.ts';

/**
 * What Marzban holds of a user: the columns of its database and the fields of its API
 * have the same names.
 */
const userSchema = z.object({
  username: z.string().min(1),
  status: z.enum(['active', 'disabled', 'limited', 'expired', 'on_hold', 'deactive']),
  used_traffic: byteCount,
  data_limit: byteCount,
  data_limit_reset_strategy: z
    .enum(['no_reset', 'day', 'week', 'month', 'year'])
    .default('no_reset'),
  expire: instant,
  created_at: instant,
  last_reset: instant,
  on_hold_expire_duration: integer,
  on_hold_timeout: instant,
  next_plan: z.unknown().optional(),
  proxies: z
    .record(z.string(), z.object({ id: text, password: text, flow: text, method: text }))
    .default({}),
  inbounds: z.record(z.string(), z.array(z.string())).nullish(),
  excluded_inbounds: z.record(z.string(), z.array(z.string())).nullish(),
});
type MarzbanUser = z.infer<typeof userSchema>;

/** Opens `db.sqlite3` of Marzban, or JSON of its API: `GET /api/users`, or an array of users. */
export async function openMarzban(file: string): Promise<PanelFile> {
  if (!(await isSqlite(file))) {
    const accounts = () => toLines(readElements(file, ['$.users']));
    return { inbounds: [], warnings: [], accounts, close: async () => undefined };
  }
  const database = await openSqlite(file);
  try {
    const query = prepare(database, file);
    return {
      inbounds: [],
      warnings: database.warnings,
      accounts: () => toLines(usersOf(database, query)),
      close: database.close,
    };
  } catch (thrown) {
    await database.close();
    throw thrown;
  }
}

/** Columns came with versions, so the query names those that are there. */
function prepare(database: SqliteFile, file: string): string {
  if (
    !database.has('users', 'username', 'status') ||
    !database.has('proxies', 'user_id', 'settings')
  ) {
    const message = `${file} is no database of Marzban, or of one older than 0.2: it lacks the tables users and proxies`;
    throw new CoreError('INVALID_ARGUMENT', message);
  }
  database.run('CREATE INDEX core_proxies ON proxies (user_id)');
  const columns = [
    'username',
    'status',
    'used_traffic',
    'data_limit',
    'data_limit_reset_strategy',
    'expire',
    'created_at',
    'on_hold_expire_duration',
    'on_hold_timeout',
  ].filter((column) => database.has('users', column));
  const parts = columns.map((column) => `u.${column}`);
  if (database.has('user_usage_logs', 'user_id', 'reset_at')) {
    database.run('CREATE INDEX core_logs ON user_usage_logs (user_id, reset_at)');
    parts.push(
      '(SELECT max(reset_at) FROM user_usage_logs l WHERE l.user_id = u.id) AS last_reset',
    );
  }
  if (database.has('next_plans', 'user_id')) {
    parts.push('(SELECT 1 FROM next_plans n WHERE n.user_id = u.id) AS next_plan');
  }
  let excluded = "'[]'";
  if (database.has('exclude_inbounds_association', 'proxy_id', 'inbound_tag')) {
    database.run('CREATE INDEX core_excluded ON exclude_inbounds_association (proxy_id)');
    excluded =
      '(SELECT json_group_array(inbound_tag) FROM exclude_inbounds_association x WHERE x.proxy_id = p.id)';
  }
  parts.push(`(SELECT json_group_array(json_object('type', p.type, 'settings', p.settings,
    'excluded', ${excluded})) FROM proxies p WHERE p.user_id = u.id) AS proxies`);
  return `SELECT ${parts.join(', ')} FROM users u ORDER BY u.id`;
}

interface ProxyRow {
  type: string;
  settings: string;
  excluded: string;
}

function* usersOf(database: SqliteFile, query: string): Generator<unknown> {
  for (const row of database.rows(query)) yield userOf(row);
}

/** The same shape as in the API. */
function userOf(row: SqliteRow): unknown {
  const proxies = readJson(row['proxies']) as ProxyRow[];
  // The database holds the names of Python's enum: VMess, VLESS, Trojan, Shadowsocks.
  const entries = proxies.map(({ type, ...rest }) => [type.toLowerCase(), rest] as const);
  return {
    ...row,
    data_limit_reset_strategy: row['data_limit_reset_strategy'] ?? undefined,
    proxies: Object.fromEntries(entries.map(([type, { settings }]) => [type, readJson(settings)])),
    excluded_inbounds: Object.fromEntries(
      entries.map(([type, { excluded }]) => [type, readJson(excluded)]),
    ),
  };
}

async function* toLines(
  users: AsyncIterable<unknown> | Iterable<unknown>,
): AsyncGenerator<AccountLine> {
  let place = 0;
  const nowMs = Date.now();
  for await (const given of users) {
    place += 1;
    const read = readRecord(userSchema, given);
    const name = (given as { username?: unknown } | null)?.username;
    if ('value' in read) yield toLine(place, read.value, nowMs);
    else yield { place, name: typeof name === 'string' ? name : undefined, fault: read.fault };
  }
}

function toLine(place: number, user: MarzbanUser, nowMs: number): AccountLine {
  const limitBytes = user.data_limit === 0 ? null : user.data_limit;
  const account: Omit<PanelAccount, 'disabled' | 'expiresAt'> = {
    name: user.username,
    limitBytes,
    usedBytes: user.used_traffic,
    ...periodOf(user),
    credentials: credentialsOf(user),
    labels: Object.values(user.inbounds ?? {}).flat(),
    notes: notesOf(user),
  };
  if (user.status === 'on_hold') {
    const durationSeconds = user.on_hold_expire_duration;
    if (durationSeconds <= 0) {
      const fault = 'on_hold_expire_duration: it is on hold, and needs a duration above 0';
      return { place, name: user.username, fault };
    }
    const started = { ...account, disabled: false, expiresAt: null, durationSeconds };
    return { place, account: started };
  }
  const status = user.status === 'deactive' ? 'disabled' : user.status;
  const { expire: expiresAt, used_traffic: usedBytes } = user;
  const access = accessOf({ status, limitBytes, usedBytes, expiresAt }, nowMs);
  const notes = [...account.notes, ...access.notes];
  return { place, account: { ...account, expiresAt, disabled: access.disabled, notes } };
}

/** Marzban resets a number of days after the last reset. */
function periodOf(user: MarzbanUser): { resetPeriod: ResetPeriod; anchorAt?: Date } {
  const strategy = user.data_limit_reset_strategy;
  if (strategy === 'no_reset' || strategy === 'year') return { resetPeriod: 'none' };
  const anchorAt = user.last_reset ?? user.created_at;
  return anchorAt === null ? { resetPeriod: strategy } : { resetPeriod: strategy, anchorAt };
}

function notesOf(user: MarzbanUser): Note[] {
  const notes: Note[] = [];
  const strategy = user.data_limit_reset_strategy;
  if (strategy === 'month') {
    notes.push({ note: 'resets every 30 days in the panel: every calendar month in Core' });
  }
  if (strategy === 'year') {
    notes.push({ note: 'resets every year in the panel: Core has no such period, so never' });
  }
  if (user.next_plan !== null && user.next_plan !== undefined) {
    notes.push({ note: 'has a next plan in the panel: not kept' });
  }
  if (user.status === 'on_hold' && user.on_hold_timeout !== null) {
    const detail = user.on_hold_timeout.toISOString();
    notes.push({
      note: 'starts at a time in the panel if it is not used until then: not kept',
      detail,
    });
  }
  const excluded = Object.values(user.excluded_inbounds ?? {}).flat();
  if (excluded.length > 0) {
    const note = 'has not all inbounds in the panel: its groups say what it gets';
    notes.push({ note, detail: `without ${excluded.join(', ')}` });
  }
  return notes;
}

const protocols = {
  vmess: 'VMESS',
  vless: 'VLESS',
  trojan: 'TROJAN',
  shadowsocks: 'SHADOWSOCKS',
} as const;

function credentialsOf(user: MarzbanUser): PanelCredential[] {
  return Object.entries(protocols).flatMap(([type, protocol]) => {
    const settings = user.proxies[type];
    const credential = settings?.id || settings?.password || '';
    if (settings === undefined || credential === '') return [];
    const { flow, method } = settings;
    return [{ protocol, credential, flow: flow || undefined, method: method || undefined }];
  });
}
