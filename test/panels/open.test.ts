import path from 'node:path';
import t, { type Test } from 'tap';
import { shareLink } from '../../src/client-apps/share-link.ts';
import { createNode } from '../../src/nodes/change.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import type { ImportReport } from '../../src/subscriptions/import.ts';
import { readLinks } from '../../src/subscriptions/links.ts';
import { listSubscriptions } from '../../src/subscriptions/show.ts';
import { connectionsOfLink } from '../../src/subscriptions/show-link.ts';
import { commandLine } from '../support/cli.ts';
import {
  makeUsers,
  type PanelUser,
  writeMarzban,
  writeRemnawave,
  writeThreeXUi,
} from '../support/panel-files.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 4, connectTimeoutMs: 120_000 });
const { pool } = stores;
const { core, json } = commandLine(stores.environment);
const users = makeUsers(2_000);
const host = 'vpn.example.com';
const reality = {
  privateKey: 'yBaw532IIUNuQWDTncozoBaLJmcd1JZzvsHUgVPxMk8',
  target: 'www.example.com:443',
  shortIds: ['0123456789abcdef'],
};

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users, subscription_events RESTART IDENTITY CASCADE');
  const node = { name: 'fra-1', region: 'eu', host, ip: '' };
  const { nodeId } = await createNode(pool, node, { registrationSeconds: 60 });
  const vision = { security: 'reality', flow: 'xtls-rprx-vision', reality };
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 443, settings: vision });
  const tls = { certificateFile: '/c', keyFile: '/k', serverName: host };
  const trojan = { security: 'tls', tls };
  await addProtocol(pool, { nodeId, protocol: 'TROJAN', port: 8443, settings: trojan });
});

/** What decides whether a client app connects: all of a link but its name and the order of its query. */
function essence(link: string): Record<string, string> {
  const url = new URL(link);
  const query = Object.fromEntries(url.searchParams);
  const fields = ['type', 'security', 'flow', 'sni', 'pbk', 'sid'];
  return {
    at: `${url.protocol}//${url.host}`,
    credential: decodeURIComponent(url.username),
    ...Object.fromEntries(fields.map((field) => [field, query[field] ?? ''])),
  };
}

/** Links as these panels write them. */
const panelLinks = {
  vless: (user: PanelUser, publicKey: string) =>
    `vless://${user.uuid}@${host}:443?security=reality&type=tcp&headerType=&flow=xtls-rprx-vision&sni=www.example.com&fp=chrome&pbk=${publicKey}&sid=0123456789abcdef#${user.name}`,
  trojan: (user: PanelUser) =>
    `trojan://${encodeURIComponent(user.password)}@${host}:8443?security=tls&type=tcp&headerType=&sni=${host}&fp=chrome#${user.name}`,
};

async function publicKey(): Promise<string> {
  const { rows } = await pool.query<{ key: string }>(
    "SELECT settings -> 'reality' ->> 'publicKey' AS key FROM node_protocols WHERE protocol = 'VLESS'",
  );
  return rows[0]?.key ?? '';
}

async function subscriptionsByUser() {
  const found = await listSubscriptions(pool, { afterId: 0, rowsMax: 10_000 });
  return new Map(found.map((one) => [one.externalId?.replace(/^.*:/, ''), one]));
}

/** Compares the links that users hold with those that Core gives them. */
async function compareLinks(
  t: Test,
  linksOf: (user: PanelUser, n: number) => string[],
): Promise<number> {
  const found = await subscriptionsByUser();
  t.equal(found.size, users.length);
  let same = 0;
  for (const [n, user] of users.entries()) {
    const subscriptionId = found.get(user.name)?.subscriptionId ?? 0;
    const links = await readLinks(pool, { subscriptionId });
    const now = links.flatMap(connectionsOfLink).map(shareLink).map(essence);
    for (const link of linksOf(user, n).map(essence)) {
      const match = now.find((one) => one['at'] === link['at']);
      if (JSON.stringify(match) === JSON.stringify(link)) same += 1;
      else t.same(match, link, user.name);
    }
  }
  return same;
}

async function compareState(t: Test): Promise<void> {
  const found = await subscriptionsByUser();
  const wrong = users.filter((user) => {
    const subscription = found.get(user.name);
    const status = user.status === 'on_hold' ? 'active' : user.status;
    return (
      subscription?.status !== status ||
      subscription.usedBytes !== user.used ||
      subscription.trafficLimitBytes !== (user.limit || null)
    );
  });
  t.same(wrong.slice(0, 3), []);
}

async function plan(panel: string, file: string): Promise<ImportReport> {
  return json<ImportReport & Record<string, unknown>>('import', panel, file, '--dry-run');
}

t.test('2,000 users of Marzban keep their links, limits, use and states', async (t) => {
  const file = path.join(t.testdir({}), 'db.sqlite3');
  writeMarzban(file, users);
  const planned = await plan('marzban', file);
  t.match(planned, { imported: false, badLines: 0, plan: { linksKept: 4_000, alreadyThere: 0 } });
  t.same((await listSubscriptions(pool, { afterId: 0, rowsMax: 1 })).length, 0, 'only a plan');
  t.match(
    planned.plan.notes.map(({ note, lines }) => [lines, note]),
    [
      [200, /resets every 30 days/],
      [40, /has not all inbounds/],
      [2_000, /has a link for which Core has no protocol/],
      [2_000, /Shadowsocks password of a method/],
    ],
  );
  t.match(await json('import', 'marzban', file, '--yes'), { imported: true, subscriptions: 2_000 });
  const key = await publicKey();
  const same = await compareLinks(t, (user) => [
    panelLinks.vless(user, key),
    panelLinks.trojan(user),
  ]);
  t.equal(same, 4_000);
  await compareState(t);
  const [first] = await listSubscriptions(pool, { afterId: 0, rowsMax: 1 });
  t.match(first, { resetPeriod: 'month', anchorAt: new Date('2026-11-20T03:00:00Z') });
  const hold = (await listSubscriptions(pool, { afterId: 6, rowsMax: 1 }))[0];
  t.match(hold, { durationSeconds: 2_592_000, expiresAt: null, externalId: 'marzban:user_6' });

  const again = await json<ImportReport & Record<string, unknown>>(
    'import',
    'marzban',
    file,
    '--yes',
  );
  t.match(again, { imported: false, plan: { alreadyThere: 2_000, notes: [] } });
  const elsewhere = path.join(t.testdir({}), 'db.sqlite3');
  writeMarzban(elsewhere, [
    { ...users[0], uuid: users[1]?.uuid ?? '', password: 'x' } as PanelUser,
  ]);
  const other = await plan('marzban', elsewhere);
  t.match(other.plan, {
    alreadyThere: 1,
    notes: [{ note: /another credential.*--source/, lines: 1 }],
  });
});

t.test('2,000 clients of 3x-ui', async (t) => {
  const file = path.join(t.testdir({}), 'x-ui.db');
  writeThreeXUi(file, users);
  const run = await core('import', '3x-ui', file, '--yes');
  t.equal(run.exitCode, 0, run.stderr);
  t.match(run.stdout, /^subscriptions +2000$/m);
  const key = await publicKey();
  const same = await compareLinks(t, (user, n) => [
    ...(n % 3 === 1 ? [] : [panelLinks.vless(user, key)]),
    ...(n % 3 === 0 ? [] : [panelLinks.trojan(user)]),
  ]);
  t.equal(same, 2_000 + users.filter((_, n) => n % 3 === 2).length);
  const found = await subscriptionsByUser();
  t.match(found.get('user_6'), { durationSeconds: 2_592_000, expiresAt: null });
  const renewed = { expiresAt: null, resetPeriod: 'month' };
  t.match(found.get('user_25'), renewed, 'a renewal becomes a period');
  t.same(
    users.filter(({ name, used }) => found.get(name)?.usedBytes !== used),
    [],
  );
});

t.test('2,000 users of Remnawave', async (t) => {
  const file = path.join(t.testdir({}), 'users.json');
  writeRemnawave(file, users);
  t.match(await json('import', 'remnawave', file, '--yes'), {
    imported: true,
    subscriptions: 2_000,
  });
  const key = await publicKey();
  const same = await compareLinks(t, (user) => [
    panelLinks.vless(user, key),
    panelLinks.trojan(user),
  ]);
  t.equal(same, 4_000);
  await compareState(t);
});

t.test('a script has to say --yes, and a map has to fit', async (t) => {
  const file = path.join(t.testdir({}), 'x-ui.db');
  writeThreeXUi(file, users.slice(0, 3));
  const unasked = await core('import', '3x-ui', file);
  t.match(unasked, { exitCode: 1, stdout: '', stderr: /give --dry-run to see the plan/ });
  const unknown = await core('import', '3x-ui', file, '--dry-run', '--map', 'nothing=1');
  t.match(unknown.stderr, /--map: the file has no inbound nothing; it has reality, trojan/);
  t.match(
    (await core('import', '3x-ui', file, '--dry-run', '--map', 'reality=99')).stderr,
    /no protocol 99/,
  );
  const mapped = await core('import', '3x-ui', file, '--dry-run', '--map', 'reality=2');
  t.match(mapped.stdout, /has a link for which Core has no protocol/);
  const gone = await core('import', '3x-ui', '/no/such', '--dry-run');
  t.match(gone.stderr, /cannot be read: ENOENT/);
});
