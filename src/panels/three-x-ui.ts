import { z } from 'zod';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import type { ResetPeriod } from '../subscriptions/period.ts';
import {
  type AccountLine,
  accessOf,
  type Note,
  type PanelAccount,
  type PanelCredential,
  type PanelFile,
  type PanelInbound,
} from './account.ts';
import { byteCount, flag, integer, readJson, readRecord, text } from './fields.ts';
import { readElements } from './json.ts';
import { createSqlite, isSqlite, openSqlite, type SqliteFile } from './sqlite.ts';

/** A client in the settings of an inbound. */
const clientSchema = z.object({
  id: text,
  password: text,
  auth: text,
  secret: text,
  flow: text,
  email: z.string(),
  totalGB: byteCount,
  expiryTime: integer,
  enable: flag.default(true),
  limitIp: integer,
  group: text,
  reset: integer,
  resetDay: integer,
  resetMax: integer,
  trafficReset: text,
  trafficResetDay: integer,
});
type Client = z.infer<typeof clientSchema>;

/** What SQL gathers for an email: its client in each inbound, and its counters. */
const gatheredSchema = z.object({
  clients: z.array(z.object({ inbound: z.number(), client: clientSchema })).min(1),
  up: byteCount,
  down: byteCount,
});

interface Inbound extends PanelInbound {
  id: number;
  /** Has a limit or an expiry of its own, for all of its clients together. */
  isBounded: boolean;
  method: string | undefined;
  serverKey: string | undefined;
  trafficReset: string;
  trafficResetDay: number;
}

const protocolNames: Record<string, VpnProtocol> = {
  vless: 'VLESS',
  vmess: 'VMESS',
  trojan: 'TROJAN',
  shadowsocks: 'SHADOWSOCKS',
  hysteria: 'HYSTERIA2',
  hysteria2: 'HYSTERIA2',
  mtproto: 'MTPROTO',
};

/**
 * Opens `x-ui.db` of 3x-ui, or the JSON of `GET /panel/api/inbounds/list`. The clients of all inbounds that
 * have the same email are one account, as their counters are one.
 */
export async function openThreeXUi(file: string): Promise<PanelFile> {
  const database = (await isSqlite(file)) ? await openSqlite(file) : await loadJson(file);
  try {
    if (!database.has('inbounds', 'settings', 'protocol', 'port', 'tag')) {
      const message = `${file} is no database of 3x-ui: it lacks the table inbounds`;
      throw new CoreError('INVALID_ARGUMENT', message);
    }
    const inbounds = readInbounds(database);
    const warnings = [
      ...database.warnings,
      ...gather(database),
      ...notImported(database, inbounds),
    ];
    const byId = new Map(inbounds.map((inbound) => [inbound.id, inbound]));
    return {
      inbounds,
      warnings,
      accounts: () => readAccounts(database, byId),
      close: database.close,
    };
  } catch (thrown) {
    await database.close();
    throw thrown;
  }
}

const listedSchema = z.object({
  id: z.number(),
  port: z.number(),
  protocol: z.string(),
  tag: text,
  remark: text,
  enable: flag.default(true),
  total: byteCount,
  expiryTime: integer,
  settings: z.unknown().optional(),
  trafficReset: text,
  trafficResetDay: integer,
  clientStats: z.array(z.object({ email: z.string(), up: byteCount, down: byteCount })).nullish(),
});

/** Puts the inbounds of the API into a database like the panel's own. */
async function loadJson(file: string): Promise<SqliteFile> {
  const database = await createSqlite();
  try {
    database.run(`CREATE TABLE inbounds (id, port, protocol, tag, remark, enable, total, expiry_time,
      settings, traffic_reset, traffic_reset_day)`);
    database.run('CREATE TABLE client_traffics (email UNIQUE, up, down)');
    let place = 0;
    for await (const element of readElements(file, ['$.obj'])) {
      place += 1;
      const read = readRecord(listedSchema, element);
      if ('fault' in read) {
        throw new CoreError('INVALID_ARGUMENT', `${file}: inbound ${place}: ${read.fault}`);
      }
      const { value } = read;
      const settings =
        typeof value.settings === 'string' ? value.settings : JSON.stringify(value.settings ?? {});
      database.run('INSERT INTO inbounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)', [
        ...[value.id, value.port, value.protocol, value.tag, value.remark],
        ...[value.enable ? 1 : 0, value.total, value.expiryTime, settings],
        ...[value.trafficReset, value.trafficResetDay],
      ]);
      for (const { email, up, down } of value.clientStats ?? []) {
        database.run('INSERT OR IGNORE INTO client_traffics VALUES (?, ?, ?)', [email, up, down]);
      }
    }
    return database;
  } catch (thrown) {
    await database.close();
    throw thrown;
  }
}

const inboundSchema = z.object({
  id: z.number(),
  port: z.number(),
  protocol: z.string(),
  tag: text,
  remark: text,
  enable: flag,
  total: byteCount,
  expiry_time: integer,
  method: text,
  password: text,
  traffic_reset: text,
  traffic_reset_day: integer,
});

function readInbounds(database: SqliteFile): Inbound[] {
  const reset = database.has('inbounds', 'traffic_reset')
    ? 'traffic_reset'
    : "'never' AS traffic_reset";
  const day = database.has('inbounds', 'traffic_reset_day')
    ? 'traffic_reset_day'
    : '1 AS traffic_reset_day';
  const bounds = database.has('inbounds', 'total', 'expiry_time') ? ', total, expiry_time' : '';
  const inbounds: Inbound[] = [];
  const query = `SELECT id, port, protocol, tag, remark, enable, ${reset}, ${day}${bounds},
    CASE WHEN json_valid(settings) THEN settings ->> '$.method' END AS method,
    CASE WHEN json_valid(settings) THEN settings ->> '$.password' END AS password
    FROM inbounds ORDER BY id`;
  for (const row of database.rows(query)) {
    const read = readRecord(inboundSchema, row);
    if ('fault' in read) {
      throw new CoreError('INVALID_ARGUMENT', `inbound ${String(row['id'])}: ${read.fault}`);
    }
    const { value } = read;
    inbounds.push({
      id: value.id,
      label: value.remark || value.tag || `inbound ${value.id}`,
      protocol: protocolNames[value.protocol] ?? value.protocol,
      port: value.port,
      enabled: value.enable,
      isBounded: value.total > 0 || value.expiry_time > 0,
      method: value.method || undefined,
      serverKey: value.password || undefined,
      trafficReset: value.traffic_reset,
      trafficResetDay: value.traffic_reset_day,
    });
  }
  return inbounds;
}

/** Writes one row for each client of each inbound, so that SQL can put those of an email together. */
function gather(database: SqliteFile): string[] {
  database.run(`CREATE TABLE core_clients AS
    SELECT i.id AS inbound, coalesce(c.value ->> '$.email', '') AS email, c.value AS client
    FROM inbounds i, json_each(i.settings, '$.clients') c
    WHERE json_valid(i.settings) AND c.type = 'object'`);
  database.run('CREATE INDEX core_clients_email ON core_clients (email)');
  const warnings: string[] = [];
  const unreadable = database.rows('SELECT id FROM inbounds WHERE NOT json_valid(settings)');
  for (const { id } of unreadable) {
    warnings.push(
      `the settings of inbound ${String(id)} are no valid JSON: its clients are left out`,
    );
  }
  const odd =
    database.rows(`SELECT i.id, count(*) AS n FROM inbounds i, json_each(i.settings, '$.clients') c
    WHERE json_valid(i.settings) AND c.type <> 'object' GROUP BY i.id`);
  for (const { id, n } of odd) {
    warnings.push(`inbound ${String(id)} has ${String(n)} clients that are no objects: left out`);
  }
  return warnings;
}

const namesShown = 5;

/** What the panel has and no account brings along. */
function notImported(database: SqliteFile, inbounds: readonly Inbound[]): string[] {
  const warnings: string[] = [];
  const bounded = inbounds.filter(({ isBounded }) => isBounded).map(({ label }) => label);
  if (bounded.length > 0) {
    warnings.push(
      `a limit or an expiry of an inbound as a whole is not kept: ${bounded.join(', ')}`,
    );
  }
  // Since 3.0 a client may be in no inbound. It has no link, so there is nothing to keep for its app.
  if (!database.has('clients', 'email')) return warnings;
  const from = 'FROM clients WHERE email NOT IN (SELECT email FROM core_clients)';
  const [found] = database.rows(`SELECT count(*) AS n ${from}`);
  const left = Number(found?.['n'] ?? 0);
  if (left === 0) return warnings;
  const rows = [...database.rows(`SELECT email ${from} ORDER BY id LIMIT ${namesShown}`)];
  const names = rows.map(({ email }) => String(email)).join(', ');
  const more = left > rows.length ? ` and ${left - rows.length} more` : '';
  warnings.push(`clients that are in no inbound have no link and are left out: ${names}${more}`);
  return warnings;
}

async function* readAccounts(
  database: SqliteFile,
  inbounds: ReadonlyMap<number, Inbound>,
): AsyncGenerator<AccountLine> {
  const counters = database.has('client_traffics', 'email', 'up', 'down')
    ? ['t.up, t.down', 'LEFT JOIN client_traffics t ON t.email = c.email']
    : ['0 AS up, 0 AS down', ''];
  const query = `SELECT c.email, json_group_array(json_object('inbound', c.inbound,
      'client', json(c.client))) AS clients, ${counters[0]}
    FROM core_clients c ${counters[1]} GROUP BY c.email ORDER BY min(c.rowid)`;
  let place = 0;
  const nowMs = Date.now();
  for (const row of database.rows(query)) {
    place += 1;
    const name = String(row['email']);
    if (name === '') {
      const fault = 'clients without an email cannot be told apart: give each one in the panel';
      yield { place, name: undefined, fault };
      continue;
    }
    const read = readRecord(gatheredSchema, { ...row, clients: readJson(row['clients']) });
    if ('value' in read) yield toLine(place, name, read.value, inbounds, nowMs);
    else yield { place, name, fault: read.fault };
  }
}

function toLine(
  place: number,
  name: string,
  gathered: z.infer<typeof gatheredSchema>,
  inbounds: ReadonlyMap<number, Inbound>,
  nowMs: number,
): AccountLine {
  const client = gathered.clients[0]?.client;
  if (client === undefined) return { place, name, fault: 'it is in no inbound' };
  const limitBytes = client.totalGB === 0 ? null : client.totalGB;
  const usedBytes = gathered.up + gathered.down;
  const period = periodOf(client, inbounds.get(gathered.clients[0]?.inbound ?? 0));
  const expiresAt = client.expiryTime > 0 && !period.isRenewed ? new Date(client.expiryTime) : null;
  if (Number.isNaN(expiresAt?.getTime())) {
    return { place, name, fault: 'expiryTime: it is past the year 275760' };
  }
  const isDone = limitBytes !== null && usedBytes >= limitBytes;
  const isPast = client.expiryTime > 0 && client.expiryTime <= nowMs;
  // 3x-ui switches a client off that is over its limit or its time, and on again at a renewal.
  const status = client.enable || isDone || isPast ? 'active' : 'disabled';
  const access = accessOf({ status, limitBytes, usedBytes, expiresAt }, nowMs);
  const held = gathered.clients.map((entry) =>
    credentialOf(entry.client, inbounds.get(entry.inbound)),
  );
  const notes = [...period.notes, ...access.notes, ...held.flatMap((entry) => entry.notes)];
  if (client.limitIp > 0) notes.push({ note: 'has a limit of addresses in the panel: not kept' });
  if (gathered.clients.some((entry) => isOther(entry.client, client))) {
    const note = 'limit, expiry or state differ between its inbounds: those of the first are taken';
    notes.push({ note });
  }
  const labels = gathered.clients.map((entry) => inbounds.get(entry.inbound)?.label ?? '');
  const durationSeconds = client.expiryTime < 0 ? Math.ceil(-client.expiryTime / 1_000) : undefined;
  const account: PanelAccount = {
    name,
    limitBytes,
    usedBytes,
    expiresAt,
    durationSeconds,
    resetPeriod: period.resetPeriod,
    anchorAt: period.anchorAt,
    disabled: access.disabled,
    credentials: held.flatMap((entry) => entry.credentials),
    labels: client.group === '' ? labels : [...labels, client.group],
    notes,
  };
  return { place, account };
}

function isOther(one: Client, other: Client): boolean {
  return (
    one.totalGB !== other.totalGB ||
    one.expiryTime !== other.expiryTime ||
    one.enable !== other.enable
  );
}

interface Period {
  resetPeriod: ResetPeriod;
  anchorAt?: Date;
  /** A renewal moves the expiry on, so the account never expires. */
  isRenewed: boolean;
  notes: Note[];
}

/** A client is renewed at its expiry, or only its traffic is reset, at midnight. */
function periodOf(client: Client, inbound: Inbound | undefined): Period {
  const isRenewed = (client.reset > 0 || client.resetDay > 0) && client.expiryTime > 0;
  if (isRenewed) return renewalOf(client);
  const own = client.trafficReset !== '' && client.trafficReset !== 'never';
  const schedule = own ? client.trafficReset : (inbound?.trafficReset ?? 'never');
  const day = Math.max(1, own ? client.trafficResetDay : (inbound?.trafficResetDay ?? 1));
  // The first of May 2000 was a Monday; 3x-ui's week begins on Sunday, the 7th.
  const anchors = new Map<string, [ResetPeriod, number]>([
    ['daily', ['day', 1]],
    ['weekly', ['week', 7]],
    ['monthly', ['month', day]],
  ]);
  const found = anchors.get(schedule);
  if (found === undefined) {
    const notes =
      schedule === 'hourly' ? [{ note: 'resets every hour in the panel: never in Core' }] : [];
    return { resetPeriod: 'none', isRenewed: false, notes };
  }
  const anchorAt = new Date(Date.UTC(2000, 4, found[1]));
  return { resetPeriod: found[0], anchorAt, isRenewed: false, notes: [] };
}

function renewalOf(client: Client): Period {
  const periods = new Map<number, ResetPeriod>([
    [1, 'day'],
    [7, 'week'],
    [30, 'month'],
    [31, 'month'],
  ]);
  const resetPeriod = client.resetDay > 0 ? 'month' : periods.get(client.reset);
  const every = client.resetDay > 0 ? 'month' : `${client.reset} days`;
  if (resetPeriod === undefined || client.resetMax > 0) {
    const note = 'is renewed in the panel, in a way that Core has not: it ends at its expiry';
    const detail =
      client.resetMax > 0 ? `every ${every}, ${client.resetMax} times` : `every ${every}`;
    return { resetPeriod: 'none', isRenewed: false, notes: [{ note, detail }] };
  }
  const note =
    'is renewed in the panel: it never expires in Core, and its traffic is reset instead';
  const notes = [{ note, detail: `every ${every}, every ${resetPeriod} in Core` }];
  return { resetPeriod, anchorAt: new Date(client.expiryTime), isRenewed: true, notes };
}

function credentialOf(
  client: Client,
  inbound: Inbound | undefined,
): { credentials: PanelCredential[]; notes: Note[] } {
  const protocol = Object.values(protocolNames).find((known) => known === inbound?.protocol);
  if (inbound === undefined || protocol === undefined) {
    const detail = `${inbound?.label ?? 'an inbound that is gone'}: ${inbound?.protocol ?? ''}`;
    return {
      credentials: [],
      notes: [{ note: 'has a link of a protocol that Core does not serve', detail }],
    };
  }
  const found = {
    VLESS: client.id,
    VMESS: client.id,
    TROJAN: client.password,
    SHADOWSOCKS: client.password,
    HYSTERIA2: client.auth || client.password,
    MTPROTO: client.secret,
  }[protocol];
  if (found === '') {
    return {
      credentials: [],
      notes: [{ note: 'has a link without a credential', detail: inbound.label }],
    };
  }
  const credential = {
    protocol,
    credential: found,
    flow: client.flow || undefined,
    method: inbound.method,
    serverKey: inbound.serverKey,
    inbound: inbound.label,
  };
  return { credentials: [credential], notes: [] };
}
