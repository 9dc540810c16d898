import { createReadStream, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import t, { type Test } from 'tap';
import { splitLines } from '../../src/cli/import/read.ts';
import { createNode } from '../../src/nodes/change.ts';
import { showNode } from '../../src/nodes/node-state.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { type ImportReport, importSubscriptions } from '../../src/subscriptions/import.ts';
import { listLinks } from '../../src/subscriptions/links.ts';
import { listSubscriptions } from '../../src/subscriptions/show.ts';
import { createUser, listUsers } from '../../src/subscriptions/users.ts';
import { commandLine } from '../support/cli.ts';
import { publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const stores = await openStores(t, { max: 4 });
const { pool } = stores;
const { core } = commandLine(stores.environment);
const publish = () => publishNow(stores);

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users, subscription_events RESTART IDENTITY CASCADE');
});

async function importJson(file: string, ...args: string[]) {
  const run = await core('subscription', 'import', file, '--json', ...args);
  return { exitCode: run.exitCode, report: JSON.parse(run.stdout || run.stderr) as ImportReport };
}

function write(t: Test, name: string, content: string): string {
  const file = path.join(t.testdir({}), name);
  writeFileSync(file, content);
  return file;
}

async function subscriptions() {
  return listSubscriptions(pool, { afterId: 0, rowsMax: 1_000 });
}

t.test('a CSV file adds users, subscriptions and links, and bumps each node once', async (t) => {
  const { nodeId } = await createNode(pool, { name: 'n', region: 'eu', host: '', ip: '' }, options);
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 443, settings: {} });
  await addProtocol(pool, { nodeId, protocol: 'TROJAN', port: 444, settings: {} });
  await publish();
  const before = (await showNode(pool, nodeId, options)).revision;
  const alice = await createUser(pool, { name: 'alice' });
  const file = write(
    t,
    'a.csv',
    '\ufeffUser,user_id,limit,expires,reset,anchor,status\r\n' +
      'alice,,10GB,2040-01-31T00:00:00Z,month,2024-01-31T00:00:00Z,active\r\n' +
      '"Bob, the ""second""",,,,,,\r\n' +
      '\r\n' +
      `,${alice},1.5KiB,2020-01-01T00:00:00+02:00,,,\r\n` +
      'carol,,,,day,,disabled\r\n' +
      'carol,,,,,,\r\n',
  );
  t.same(await importJson(file), {
    exitCode: 0,
    report: {
      imported: true,
      subscriptions: 5,
      users: 2,
      links: 10,
      badLines: 0,
      bad: [],
      plan: {
        states: { active: 3, limited: 0, expired: 1, disabled: 1, waiting: 0 },
        usedBytes: 0,
        linksKept: 0,
        alreadyThere: 0,
        notes: [],
      },
    },
  });
  t.match(await listUsers(pool, { afterId: 0, rowsMax: 9 }), [
    { name: 'alice' },
    { name: 'Bob, the "second"' },
    { name: 'carol' },
  ]);
  const found = await subscriptions();
  t.match(found, [
    {
      userId: alice,
      status: 'active',
      trafficLimitBytes: 10_000_000_000,
      expiresAt: new Date('2040-01-31T00:00:00Z'),
      resetPeriod: 'month',
      anchorAt: new Date('2024-01-31T00:00:00Z'),
    },
    { userId: 2, status: 'active', trafficLimitBytes: null, expiresAt: null, resetPeriod: 'none' },
    { userId: alice, status: 'expired', trafficLimitBytes: 1_536 },
    { userId: 3, status: 'disabled', resetPeriod: 'day' },
    { userId: 3, status: 'active' },
  ]);
  t.ok((found[0]?.nextResetAt?.getTime() ?? 0) > Date.now());
  for (const { subscriptionId } of found) {
    t.equal((await listLinks(pool, subscriptionId)).length, 2);
  }
  await publish();
  t.equal((await showNode(pool, nodeId, options)).revision, before + 1);
});

t.test('bad lines are listed by number, and stop the import without --keep-going', async (t) => {
  await createUser(pool, { name: 'twin' });
  await createUser(pool, { name: 'twin' });
  const file = write(
    t,
    'bad.csv',
    [
      'user,user_id,limit,expires,reset,status',
      'good,,1GB,,,',
      'x,,ten,,,',
      'x,,,tomorrow,,',
      'x,,,,yearly,',
      'x,,,,,limited',
      'x,1,,,,',
      ',,,,,',
      ',99,,,,',
      'twin,,,,,',
      'x,y',
      'good,,2GB,,,',
    ].join('\n'),
  );
  const refused = await importJson(file);
  t.equal(refused.exitCode, 1);
  t.match(refused.report, { imported: false, subscriptions: 0, users: 0, badLines: 9 });
  t.match(
    refused.report.bad.map(({ line, fault }) => `${line} ${fault}`),
    [
      /^3 limit: It must be a number with/,
      /^4 expires: It must be a date/,
      /^5 reset: It must be one of none, day, week, month/,
      /^6 status: limited, and used is under limit/,
      /^7 user, user_id: one of the two is needed/,
      /^8 user, user_id: one of the two is needed/,
      /^9 user_id: there is no user 99/,
      /^10 user: several users are called twin/,
      /^11 2 columns instead of 6/,
    ],
  );
  t.same(await subscriptions(), []);
  t.equal(
    (await listUsers(pool, { afterId: 0, rowsMax: 9 })).length,
    2,
    'no user was added either',
  );
  const shown = await core('subscription', 'import', file);
  t.match(shown.stdout, /^line 3: limit: It must be/);
  t.match(shown.stdout, /^imported +nothing$/m);
  t.equal(shown.stderr, '', 'no progress bar without a terminal');

  const kept = await importJson(file, '--keep-going');
  t.equal(kept.exitCode, 0);
  t.match(kept.report, { imported: true, subscriptions: 2, users: 1, badLines: 9 });
  t.match(await subscriptions(), [
    { trafficLimitBytes: 1_000_000_000 },
    { trafficLimitBytes: 2_000_000_000 },
  ]);
});

t.test('a quote that is not closed is a fault of its own line', async (t) => {
  const file = write(
    t,
    'quotes.csv',
    [
      'user,limit\r',
      '"Smith, Bob",1GB\r',
      '\r',
      '"Jones, Ann,2GB\r',
      '"Brown, ""Al""","3GB"\r',
      'O"Hara,"4GB\r',
      '"two',
      'lines",5GB',
      `"${'x'.repeat(70_000)}",6GB`,
      'inch 5",7GB\r',
      '"Last,8GB',
      '"Half" way,9GB',
      '"",""',
    ].join('\n'),
  );
  const { exitCode, report } = await importJson(file);
  t.equal(exitCode, 1);
  const unclosed = 'a quote is opened and not closed on this line';
  const within = 'a quote within a value: put the value in quotes, and the quote twice';
  t.same(report.bad, [
    { line: 4, fault: unclosed },
    { line: 6, fault: within },
    { line: 7, fault: unclosed },
    { line: 8, fault: within },
    { line: 9, fault: 'over 65536 bytes' },
    { line: 10, fault: within },
    { line: 11, fault: unclosed },
    { line: 12, fault: within },
    { line: 13, fault: 'user, user_id: one of the two is needed' },
  ]);
  const kept = await importJson(file, '--keep-going');
  t.match(kept.report, { imported: true, subscriptions: 2, badLines: 9 });
  t.match(await listUsers(pool, { afterId: 0, rowsMax: 9 }), [
    { name: 'Smith, Bob' },
    { name: 'Brown, "Al"' },
  ]);
});

t.test('NDJSON, also from standard input', async (t) => {
  const lines = [
    '{"user":"a","limit":1000,"reset":"week"}',
    '',
    '{"user":"b","limit":"1KB","expires":null}',
  ];
  const withInput = commandLine(stores.environment, { input: lines.join('\n') });
  const piped = await withInput.core('subscription', 'import', '-', '--format', 'ndjson', '--json');
  t.match(JSON.parse(piped.stdout), { imported: true, subscriptions: 2 });
  t.match(await subscriptions(), [{ trafficLimitBytes: 1_000 }, { trafficLimitBytes: 1_000 }]);
  const copies = readdirSync(tmpdir()).filter((name) => name.startsWith('core-import-'));
  t.same(copies, [], 'nothing is left behind');
  const bad = ['{', '[]', '{"user":["a"]}', '{"user":"a","uesr":"b"}', `"${'x'.repeat(70_000)}"`];
  const { report } = await importJson(write(t, 'bad.ndjson', `${bad.join('\n')}\n`));
  t.match(report.bad, [
    { line: 1, fault: 'not valid JSON' },
    { line: 2, fault: 'not a JSON object' },
    { line: 3, fault: 'user: neither text nor a number' },
    { line: 4, fault: /^uesr: unknown field: leave it out/ },
    { line: 5, fault: 'over 65536 bytes' },
  ]);
});

t.test('several batches, and the first hundred bad lines of many', async (t) => {
  const rows = Array.from({ length: 5_500 }, (_, n) => `user-${n % 3_000},1GB`);
  const good = write(t, 'many.csv', ['user,limit', ...rows].join('\n'));
  t.match((await importJson(good)).report, { subscriptions: 5_500, users: 3_000 });
  const bad = rows.map((row, n) => (n % 10 === 0 ? `${row},` : row));
  const file = write(t, 'bad.csv', ['user,limit', ...bad].join('\n'));
  const { report } = await importJson(file);
  t.match(report, { imported: false, badLines: 550 });
  t.equal(report.bad.length, 100);
  t.match(report.bad[99], { line: 992 });
  const shown = await core('subscription', 'import', file);
  t.match(shown.stdout, /^and 450 more$/m);
});

t.test('if other lines are bad than in the check, nothing is imported', async (t) => {
  const subscription = {
    user: { name: 'dora' },
    trafficLimitBytes: null,
    expiresAt: null,
    resetPeriod: 'none',
  } as const;
  let passes = 0;
  async function* open() {
    passes += 1;
    const [bad, good] = passes === 1 ? [1, 2] : [2, 1];
    yield { line: bad, fault: 'odd' };
    yield { line: good, subscription };
  }
  await t.rejects(importSubscriptions(pool, open, { keepGoing: true }), {
    code: 'INVALID_ARGUMENT',
    message: /changed after the check, so nothing was imported: line 2: odd/,
  });
  t.same(await subscriptions(), []);
});

t.test('files that cannot be read at all', async (t) => {
  const faults: [name: string, content: string, message: RegExp][] = [
    ['empty.csv', '', /is empty: a header is needed/],
    ['wrong.csv', 'user,limt\n', /unknown columns: limt; known are user, user_id/],
    ['twice.csv', 'user,User\n', /names a column twice/],
    ['none.csv', 'limit\n1\n', /neither user nor user_id/],
    ['long.csv', `user${'x'.repeat(80_000)}`, /The header on line 1: over 65536 bytes/],
    ['open.csv', '"user\na\n', /The header on line 1: a quote is opened and not closed/],
    ['a.txt', 'user\nx\n', /Give --format/],
  ];
  for (const [name, content, message] of faults) {
    const run = await core('subscription', 'import', write(t, name, content));
    t.equal(run.exitCode, 1, name);
    t.match(run.stderr, message, name);
    t.equal(run.stdout, '');
  }
  t.match((await core('subscription', 'import', '/no/such.csv')).stderr, /ENOENT/);
  const nothing = await importJson(write(t, 'header.csv', 'user\n'));
  t.match(nothing, { exitCode: 1, report: { imported: false, badLines: 0 } });
});

t.test('a progress bar at a terminal', async (t) => {
  const file = write(t, 'a.csv', 'user\na\n');
  const watched = commandLine(stores.environment, { isStderrTerminal: true });
  const { exitCode, stderr } = await watched.core('subscription', 'import', file);
  t.equal(exitCode, 0);
  t.match(stderr, /lines/);
});

t.test('lines are split correctly wherever the chunks end', async (t) => {
  const file = write(t, 'x', 'ä\n\nbcd\n0123456789\ne');
  for (const highWaterMark of [1, 2, 3, 64]) {
    const lines: [number, string | undefined][] = [];
    for await (const { line, text } of splitLines(createReadStream(file, { highWaterMark }), 5)) {
      lines.push([line, text]);
    }
    t.same(lines, [
      [1, 'ä'],
      [2, ''],
      [3, 'bcd'],
      [4, undefined],
      [5, 'e'],
    ]);
  }
});
