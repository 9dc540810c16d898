import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import sqlite from 'node-sqlite3-wasm';

// Files as panels hold them, with made up users. The tables are those of the panels' own sources: Marzban
// 0.8.4, 3x-ui 2.8, Remnawave 2.2.

export interface PanelUser {
  name: string;
  uuid: string;
  password: string;
  limit: number;
  used: number;
  /** Seconds since 1970; 0: never. */
  expire: number;
  status: 'active' | 'disabled' | 'limited' | 'expired' | 'on_hold';
}

/** A UUID, or as many hex digits, from a number: the same at each run. */
function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Users in all states, some with passwords that need care. */
export function makeUsers(count: number): PanelUser[] {
  const nowSeconds = Math.floor(Date.now() / 1_000);
  const states = [
    'active',
    'active',
    'active',
    'disabled',
    'limited',
    'expired',
    'on_hold',
  ] as const;
  return Array.from({ length: count }, (_, n) => {
    const hex = digest(`user ${n}`);
    const status = states[n % states.length] ?? 'active';
    const limit = n % 5 === 0 && status !== 'limited' ? 0 : 50_000_000_000;
    const passwords = [
      hex.slice(0, 22),
      `${hex.slice(0, 10)} ü/+=&#@:?%`,
      hex.slice(0, 32).toUpperCase(),
    ];
    return {
      name: `user_${n}`,
      uuid: `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`,
      password: passwords[n % 3] ?? '',
      limit,
      used: status === 'limited' ? limit : n * 1_000_003,
      expire:
        status === 'expired'
          ? nowSeconds - 86_400
          : status === 'on_hold' || n % 4 === 0
            ? 0
            : nowSeconds + 864_000,
      status,
    };
  });
}

/** Makes an SQLite file and fills it in one transaction. */
export function createDatabase(
  file: string,
  schema: string,
  fill: (db: InstanceType<typeof sqlite.Database>) => void,
): void {
  const db = new sqlite.Database(file);
  try {
    db.exec(schema);
    db.exec('BEGIN');
    fill(db);
    db.exec('COMMIT');
  } finally {
    db.close();
  }
}

const marzbanSchema = `
CREATE TABLE users (id INTEGER PRIMARY KEY, username VARCHAR(34) COLLATE NOCASE UNIQUE,
  status VARCHAR(8) NOT NULL, used_traffic BIGINT, data_limit BIGINT,
  data_limit_reset_strategy VARCHAR(8) NOT NULL DEFAULT 'no_reset', expire INTEGER, admin_id INTEGER,
  sub_revoked_at DATETIME, created_at DATETIME, note VARCHAR(500), online_at DATETIME,
  on_hold_expire_duration BIGINT, on_hold_timeout DATETIME, edit_at DATETIME, last_status_change DATETIME);
CREATE TABLE proxies (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users (id), type VARCHAR(11) NOT NULL,
  settings JSON NOT NULL);
CREATE TABLE inbounds (id INTEGER PRIMARY KEY, tag VARCHAR(256) NOT NULL UNIQUE);
CREATE TABLE exclude_inbounds_association (proxy_id INTEGER REFERENCES proxies (id),
  inbound_tag VARCHAR(256) REFERENCES inbounds (tag));
CREATE TABLE user_usage_logs (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users (id),
  used_traffic_at_reset BIGINT NOT NULL, reset_at DATETIME);
CREATE TABLE next_plans (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, data_limit BIGINT NOT NULL, expire INTEGER);
CREATE TABLE node_user_usages (id INTEGER PRIMARY KEY, created_at DATETIME NOT NULL, user_id INTEGER,
  node_id INTEGER, used_traffic BIGINT);`;

/** `db.sqlite3` of Marzban. Each tenth user is reset every month, and each 50th has one inbound less. */
export function writeMarzban(file: string, users: readonly PanelUser[]): void {
  createDatabase(file, marzbanSchema, (db) => {
    db.run(
      "INSERT INTO inbounds (tag) VALUES ('VLESS TCP REALITY'), ('Trojan TLS'), ('Shadowsocks TCP')",
    );
    for (const [n, user] of users.entries()) {
      const { name, status, used, limit, expire } = user;
      const id = n + 1;
      db.run(
        `INSERT INTO users (id, username, status, used_traffic, data_limit, data_limit_reset_strategy, expire,
           created_at, on_hold_expire_duration) VALUES (?, ?, ?, ?, ?, ?, ?, '2026-01-31 10:00:00.123456', ?)`,
        [
          ...[id, name, status, used, limit === 0 ? null : limit],
          ...[n % 10 === 0 ? 'month' : 'no_reset', expire === 0 ? null : expire],
          status === 'on_hold' ? 2_592_000 : null,
        ],
      );
      const proxies = [
        ['VLESS', { id: user.uuid, flow: 'xtls-rprx-vision' }],
        ['VMess', { id: user.uuid }],
        ['Trojan', { password: user.password, flow: '' }],
        ['Shadowsocks', { password: user.password, method: 'chacha20-ietf-poly1305' }],
      ] as const;
      for (const [type, settings] of proxies) {
        db.run('INSERT INTO proxies (user_id, type, settings) VALUES (?, ?, ?)', [
          ...[id, type, JSON.stringify(settings)],
        ]);
      }
      if (n % 10 === 0) {
        db.run(
          "INSERT INTO user_usage_logs (user_id, used_traffic_at_reset, reset_at) VALUES (?, 5, '2026-11-20 03:00:00.000000')",
          [id],
        );
      }
      if (n % 50 === 0) {
        db.run(
          "INSERT INTO exclude_inbounds_association VALUES ((SELECT id FROM proxies WHERE user_id = ? AND type = 'Trojan'), 'Trojan TLS')",
          [id],
        );
      }
    }
  });
}

/** Of 3x-ui 2.8. 3x-ui 3 still has these columns. */
export const threeXUiSchema = `
CREATE TABLE inbounds (id integer PRIMARY KEY AUTOINCREMENT, user_id integer, up integer, down integer,
  total integer, remark text, enable numeric, expiry_time integer, listen text, port integer, protocol text,
  settings text, stream_settings text, tag text UNIQUE, sniffing text);
CREATE TABLE client_traffics (id integer PRIMARY KEY AUTOINCREMENT, inbound_id integer, enable numeric,
  email text UNIQUE, up integer, down integer, all_time integer, expiry_time integer, total integer,
  reset integer DEFAULT 0, last_online integer DEFAULT 0);`;

/** `x-ui.db` of 3x-ui: users by turns on VLESS, on Trojan, and on both with one email. */
export function writeThreeXUi(file: string, users: readonly PanelUser[]): void {
  const clients = { vless: [] as object[], trojan: [] as object[] };
  for (const [n, user] of users.entries()) {
    const common = {
      email: user.name,
      limitIp: n % 20 === 0 ? 2 : 0,
      totalGB: user.limit,
      expiryTime: user.status === 'on_hold' ? -2_592_000_000 : user.expire * 1_000,
      enable: user.status !== 'disabled',
      tgId: '',
      subId: digest(user.name).slice(0, 16),
      reset: n % 25 === 0 && user.expire > 0 ? 30 : 0,
    };
    if (n % 3 !== 1) clients.vless.push({ id: user.uuid, flow: 'xtls-rprx-vision', ...common });
    if (n % 3 !== 0) clients.trojan.push({ password: user.password, ...common });
  }
  createDatabase(file, threeXUiSchema, (db) => {
    const rows = [
      ['reality', 443, 'vless', clients.vless],
      ['trojan', 8443, 'trojan', clients.trojan],
    ] as const;
    for (const [remark, port, protocol, list] of rows) {
      db.run(
        `INSERT INTO inbounds (user_id, remark, enable, port, protocol, settings, stream_settings, tag)
         VALUES (1, ?, 1, ?, ?, ?, '{}', ?)`,
        [remark, port, protocol, JSON.stringify({ clients: list }, null, 2), `inbound-${port}`],
      );
    }
    for (const user of users) {
      db.run(
        `INSERT INTO client_traffics (inbound_id, enable, email, up, down, expiry_time, total)
         VALUES (1, 1, ?, ?, ?, ?, ?)`,
        [
          user.name,
          Math.floor(user.used / 3),
          user.used - Math.floor(user.used / 3),
          user.expire * 1_000,
          user.limit,
        ],
      );
    }
  });
}

/** The answer of Remnawave to `GET /api/users`. It knows no users on hold. */
export function writeRemnawave(file: string, users: readonly PanelUser[]): void {
  const listed = users.map((user) => ({
    uuid: user.uuid,
    shortUuid: digest(user.name).slice(0, 16),
    username: user.name,
    status: user.status === 'on_hold' ? 'ACTIVE' : user.status.toUpperCase(),
    usedTrafficBytes: user.used,
    lifetimeUsedTrafficBytes: user.used,
    trafficLimitBytes: user.limit,
    trafficLimitStrategy: 'MONTH',
    expireAt: new Date((user.expire || 4_102_444_800) * 1_000).toISOString(),
    trojanPassword: user.password,
    vlessUuid: user.uuid,
    ssPassword: user.password,
    hwidDeviceLimit: null,
    createdAt: '2026-01-31T10:00:00.000Z',
    activeInternalSquads: [{ uuid: user.uuid, name: 'Default-Squad' }],
  }));
  writeFileSync(file, JSON.stringify({ response: { users: listed, total: listed.length } }));
}
