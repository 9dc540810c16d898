import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { createGroup } from '../../src/groups/groups.ts';
import { createNode, revokeNode } from '../../src/nodes/change.ts';
import { credentialUuid } from '../../src/protocols/credential.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import type { ImportReport } from '../../src/subscriptions/import.ts';
import { readLinks } from '../../src/subscriptions/links.ts';
import { listSubscriptions } from '../../src/subscriptions/show.ts';
import { until } from '../support/api.ts';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

// Thousands of queries wait for a connection at once, on a machine that may be busy.
const stores = await openStores(t, { max: 4, connectTimeoutMs: 120_000 });
const { pool } = stores;
const { core } = commandLine(stores.environment);
const [one, two, three] = [
  '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11',
  '9c2e4d88-71aa-4f0b-8d53-2b6a9e7f4c22',
  '5d1c9a04-8f5e-4d0b-a2c7-e4b3f6a90d18',
] as const;

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users, subscription_events RESTART IDENTITY CASCADE');
  const options = { registrationSeconds: 60 };
  const node = { region: '', host: 'h', ip: '' };
  const { nodeId } = await createNode(pool, { ...node, name: 'n' }, options);
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 443, settings: {} });
  await addProtocol(pool, { nodeId, protocol: 'MTPROTO', port: 8443, settings: {} });
  const gone = (await createNode(pool, { ...node, name: 'gone' }, options)).nodeId;
  await addProtocol(pool, { nodeId: gone, protocol: 'VLESS', port: 443, settings: {} });
  await revokeNode(pool, gone);
});

function write(t: Test, name: string, lines: readonly string[]): string {
  const file = path.join(t.testdir({}), name);
  writeFileSync(file, lines.join('\n'));
  return file;
}

async function importFile(file: string, ...args: string[]): Promise<ImportReport> {
  const run = await core('subscription', 'import', file, '--json', ...args);
  return JSON.parse(run.stdout) as ImportReport;
}

/** The credentials of every subscription's links by protocol, in the order of the file. */
async function credentials(): Promise<string[][]> {
  const found = await listSubscriptions(pool, { afterId: 0, rowsMax: 10_000 });
  return Promise.all(
    found.map(async ({ subscriptionId }) =>
      (await readLinks(pool, { subscriptionId })).map((link) => link.credential),
    ),
  );
}

const other = /^[0-9a-f]{8}-[0-9a-f]{4}-4/;

t.test('links get the credentials of the file, and the others new ones', async (t) => {
  const file = write(t, 'a.csv', [
    'link_2,user,LINK_1',
    `,a,${one.toUpperCase()}`,
    `${three.replaceAll('-', '')},b, ${two} `,
    ',c,',
    `${one},d," pass,word "`,
  ]);
  t.match(await importFile(file), { imported: true, subscriptions: 4, links: 8 });
  t.match(await credentials(), [
    [one.toUpperCase(), other],
    [two, three.replaceAll('-', '')],
    [other, other],
    [' pass,word ', one],
  ]);
  const again = await importFile(file, '--keep-going');
  t.match(again, { imported: true, subscriptions: 1, badLines: 3 });
  const mistaken = 'or a proxy would take it for that';
  t.same(again.bad, [
    {
      line: 2,
      fault: `link_1: the credential is that of subscription 1 on protocol 1, ${mistaken}`,
    },
    {
      line: 3,
      fault: `link_2: the credential is that of subscription 2 on protocol 2, ${mistaken}`,
    },
    {
      line: 5,
      fault: `link_2: the credential is that of subscription 4 on protocol 2, ${mistaken}`,
    },
  ]);
});

t.test('links in NDJSON', async (t) => {
  const lines = [`{"user":"a","link_1":"${one}","link_2":null}`, `{"user":"b","link_2":"${two}"}`];
  t.match(await importFile(write(t, 'a.ndjson', lines)), { imported: true });
  t.match(await credentials(), [
    [one, other],
    [other, two],
  ]);
});

t.test('one credential for all links of a subscription', async (t) => {
  const file = write(t, 'a.csv', [
    'user,credential,link_1,link_2',
    `a,${one},,`,
    'b,alice-phone,,',
    `c,,${two},${two}`,
    `d,${three},${two},`,
    `e,,${one},`,
  ]);
  const mistaken = 'or a proxy would take it for that';
  const report = await importFile(file, '--keep-going');
  t.same(report.bad, [
    { line: 5, fault: `link_1: the credential is that of line 4, ${mistaken}` },
    { line: 6, fault: `link_1: the credential is that of line 2, ${mistaken}` },
  ]);
  t.same(await credentials(), [
    [one, one],
    ['alice-phone', 'alice-phone'],
    [two, two],
  ]);
});

t.test('credentials that a proxy takes for one user make a bad line', async (t) => {
  // VLESS and Hysteria2 ignore bytes 7 and 8 of a UUID.
  const alike = one.replace('-4e2a-', '-0001-');
  const file = write(t, 'a.csv', [
    'user,link_1,link_2',
    `a,${one},`,
    `b,${alike},`,
    'c,alice-phone,',
    `d,${credentialUuid('alice-phone')},`,
    `e,,${alike}`,
  ]);
  const report = await importFile(file);
  t.same(
    report.bad.map((bad) => bad.line),
    [3, 5],
  );
});

t.test('impossible credentials make bad lines', async (t) => {
  const bad = write(t, 'bad.csv', [
    'user,user_id,link_1,link_2,link_3,link_9,groups',
    `a,,${one},,,,`,
    'b,,a\tb,,,,',
    `c,,${'x'.repeat(257)},,,,`,
    `d,,${two},,,,empty`,
    `e,,${one},,,,`,
    `f,,,,${two},,`,
    `g,,,,,${three},`,
    `,77,${three},,,,`,
    `h,,${three},,,,`,
    'i,,,,,,gone;default',
    'j,,,,,,empty;default',
  ]);
  await createGroup(pool, 'empty');
  const mistaken = 'or a proxy would take it for that';
  const faults = [
    { line: 3, fault: 'link_1: Must not hold control characters' },
    { line: 4, fault: 'link_1: Must have at most 256 characters' },
    { line: 5, fault: 'link_1: the subscription has none of the groups of protocol 1' },
    { line: 6, fault: `link_1: the credential is that of line 2, ${mistaken}` },
    { line: 7, fault: 'link_3: there is no protocol 3' },
    { line: 8, fault: 'link_9: there is no protocol 9' },
    { line: 9, fault: 'user_id: there is no user 77' },
    { line: 10, fault: `link_1: the credential is that of line 9, ${mistaken}` },
    { line: 11, fault: 'groups: There is no group gone; there are default, empty' },
  ];
  const report = await importFile(bad);
  t.match(report, { imported: false, badLines: faults.length });
  t.same(report.bad, faults);
  t.same(await credentials(), []);
  t.match(await importFile(bad, '--keep-going'), { imported: true, subscriptions: 2, links: 4 });
  t.match(await credentials(), [
    [one, other],
    [other, other],
  ]);
  const header = await core('subscription', 'import', write(t, 'h.csv', ['user,link_0', 'a,']));
  t.match(header.stderr, /unknown columns: link_0; known are .*, link_ID$/m);
});

t.test('a credential that comes twice is found even in another batch', async (t) => {
  const nth = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
  const rows = Array.from({ length: 5_200 }, (_, n) => `u,${nth(n)}`);
  const file = write(t, 'a.csv', ['user,link_1', ...rows, `u,${nth(7)}`]);
  const report = await importFile(file);
  t.match(report.bad, [{ line: 5_202, fault: /^link_1: the credential is that of line 9,/ }]);
  t.match(await importFile(file, '--keep-going'), { subscriptions: 5_200 });
  t.same(
    (await credentials()).map(([credential]) => credential),
    rows.map((_, n) => nth(n)),
  );
});

t.test('if somebody takes a credential meanwhile, nothing is imported', async (t) => {
  await importFile(write(t, 'first.csv', ['user', 'x']));
  const file = write(t, 'a.csv', ['user,link_1', `a,${two}`, `b,${one}`]);
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    await client.query(
      `INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id, credential, credential_uuid)
       VALUES (gen_random_uuid(), 1, 1, $1, $2)`,
      [one, one],
    );
    const importing = core('subscription', 'import', file, '--json');
    const waiting = () =>
      pool.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database()
           AND wait_event_type = 'Lock' AND query LIKE '%INTO subscription_links%'`,
      );
    await until(waiting, ({ rows }) => rows.length > 0);
    await client.query('COMMIT');
    const { exitCode, stdout, stderr } = await importing;
    t.same([exitCode, stdout], [1, '']);
    t.match(JSON.parse(stderr), {
      error: { code: 'INVALID_ARGUMENT', message: /credential of the file came into use during/ },
    });
  } finally {
    client.release(true);
  }
  t.equal((await credentials()).length, 1, 'nothing was imported');
});
