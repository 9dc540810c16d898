import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { splitLines } from '../../../src/cli/import/read.ts';
import { createNode } from '../../../src/nodes/change.ts';
import { addProtocol } from '../../../src/settings/protocols.ts';
import type { ImportReport } from '../../../src/subscriptions/import.ts';
import { readLinks } from '../../../src/subscriptions/links.ts';
import { listSubscriptions } from '../../../src/subscriptions/show.ts';
import { commandLine } from '../../support/cli.ts';
import { openStores } from '../../support/stores.ts';

const stores = await openStores(t, { max: 4 });
const { pool } = stores;
const { core } = commandLine(stores.environment);

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users, subscription_events RESTART IDENTITY CASCADE');
  const node = { name: 'n', region: 'eu', host: 'h', ip: '' };
  const { nodeId } = await createNode(pool, node, { registrationSeconds: 60 });
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 443, settings: {} });
  await addProtocol(pool, { nodeId, protocol: 'TROJAN', port: 444, settings: {} });
});

async function importText(t: Test, name: string, content: string | Buffer, ...args: string[]) {
  const file = path.join(t.testdir({}), name);
  writeFileSync(file, content);
  const run = await core('subscription', 'import', file, '--json', ...args);
  return JSON.parse(run.stdout || run.stderr) as ImportReport & { message?: string };
}

async function only() {
  return (await listSubscriptions(pool, { afterId: 0, rowsMax: 9 }))[0];
}

const never = { expiresAt: null };
const at2030 = { expiresAt: new Date('2030-01-01T00:00:00Z') };

t.test('files as panels and spreadsheets write them are taken', async (t) => {
  const taken: [name: string, content: string | Buffer, expected: object, ...args: string[]][] = [
    ['ms.csv', 'user,expires\nms,1893456000000\n', at2030],
    ['s.csv', 'user,expires\nunix,1893456000\n', at2030],
    [
      's.ndjson',
      '{"user":"nd","limit":1e10,"expires":1893456000}',
      { ...at2030, trafficLimitBytes: 1e10 },
    ],
    ['0.csv', 'user,expires\na,0\n', never],
    ['never.csv', 'user,expires\na,never\n', never],
    ['semicolon.csv', 'user;limit\nsemi;1GB\n', { trafficLimitBytes: 1e9 }],
    ['tab.csv', 'user\tlimit\ntab\t1GB\n', { trafficLimitBytes: 1e9 }],
    [
      'le.csv',
      Buffer.from('\ufeffuser,limit\n\u00fctf16,1GB\n', 'utf16le'),
      { trafficLimitBytes: 1e9 },
    ],
    [
      'be.csv',
      Buffer.from('\ufeffuser,limit\nu,1GB\n', 'utf16le').swap16(),
      { trafficLimitBytes: 1e9 },
    ],
    ['zero.csv', 'user,limit\nzero,0\n', { trafficLimitBytes: null }],
    [
      'used.csv',
      'user,limit,used\nmover,50GB,40GB\n',
      { usedBytes: 40e9, trafficLimitBytes: 50e9 },
    ],
    ['limited.csv', 'user,limit,used,status\na,1GB,1GB,limited\n', { status: 'limited' }],
    ['expired.csv', 'user,expires,status\na,1700000000,EXPIRED\n', { status: 'expired' }],
    ['hold.csv', 'user,status,duration\na,on_hold,30d\n', { durationSeconds: 2_592_000 }],
    [
      'naive.csv',
      'user,expires\na,2030-01-31 00:00:00\n',
      { expiresAt: new Date('2030-01-30T20:30:00Z') },
      '--timezone',
      'Asia/Tehran',
    ],
    [
      'summer.csv',
      'user,expires\na,2030-07-01\n',
      { expiresAt: new Date('2030-06-30T22:00:00Z') },
      '--timezone',
      'Europe/Berlin',
    ],
  ];
  for (const [name, content, expected, ...args] of taken) {
    await pool.query('TRUNCATE users RESTART IDENTITY CASCADE');
    t.match(await importText(t, name, content, ...args), { imported: true, badLines: 0 }, name);
    t.match(await only(), expected, name);
  }
});

t.test('what could mean several things is a bad line that says what to write', async (t) => {
  const refused: [name: string, content: string, fault: RegExp][] = [
    [
      'date.csv',
      'user,expires\na,2030-01-31\n',
      /names no time zone: write it like 2030-01-31T00:00:00Z/,
    ],
    [
      'naive.csv',
      'user,expires\na,2030-01-31T10:20:30\n',
      /like 2030-01-31T10:20:30Z, or give --timezone/,
    ],
    ['day.csv', 'user,expires\na,2030-02-30T00:00:00Z\n', /there is no such date/],
    ['small.csv', 'user,expires\na,30\n', /too small for seconds since 1970/],
    ['negative.csv', 'user,expires\na,-2592000000\n', /negative: .* duration/],
    ['far.csv', 'user,expires\na,99999999999999999\n', /past the year 9999/],
    ['excel.csv', 'user,expires\na,31.01.2030\n', /must be a date and time with zone/],
    ['limited.csv', 'user,status\nlim,limited\n', /status: limited, and used is under limit/],
    [
      'expired.csv',
      'user,status\nexp,expired\n',
      /status: expired, and expires is not in the past/,
    ],
    ['hold.csv', 'user,status\nhold,on_hold\n', /on_hold needs duration/],
    ['status.csv', 'user,status\na,paused\n', /It must be one of active, disabled/],
    ['both.csv', 'user,expires,duration\na,1893456000,30d\n', /duration: it has expires, too/],
    ['bytes.csv', 'user,limit\na,1e308\n', /limit: It must be a number with/],
    ['minus.csv', 'user,used\na,-5\n', /used: It must be a number with/],
    ['extra.ndjson', '{"user":"a","sub":{"a":1}}', /sub: unknown field: leave it out/],
    ['huge.ndjson', '{"user":"a","limit":1e308}', /limit: a number past 2\^53/],
    ['escape.csv', 'user\n\u001b[2Ja\n', /user: It must not hold the character U\+001B/],
    ['twice.csv', 'user,external_id\na,x\nb,x\n', /external_id: x is on line 2, too/],
  ];
  for (const [name, content, fault] of refused) {
    const { imported, bad } = await importText(t, name, content);
    t.equal(imported, false, name);
    t.match(bad.at(0)?.fault, fault, name);
  }
  const latin = await importText(t, 'latin.csv', Buffer.from('user\nM\u00fcller\n', 'latin1'));
  t.match(latin.bad, [{ line: 2, fault: /no valid UTF-8/ }]);
  t.equal(await only(), undefined);
});

t.test('credentials stay what they were, byte for byte', async (t) => {
  const upper = '0B8F5F26-3C1D-4E2A-9A47-6F1F0C5D7EAA';
  const lines = ['user,link_1,link_2', `a,alice-phone,Xk2pQ9vLmZ7rT4`, `b,${upper},${upper}`];
  t.match(await importText(t, 'a.csv', lines.join('\n')), { imported: true, subscriptions: 2 });
  const held = await Promise.all(
    [1, 2].map((subscriptionId) => readLinks(pool, { subscriptionId })),
  );
  t.same(
    held.map((links) => links.map((link) => link.credential)),
    [
      ['alice-phone', 'Xk2pQ9vLmZ7rT4'],
      [upper, upper],
    ],
  );
});

t.test('a repeated import leaves out what is there', async (t) => {
  const header = 'user,external_id,credential';
  const first = await importText(t, 'a.csv', `${header}\na,shop-1,one\n`);
  t.match(first, { imported: true, subscriptions: 1 });
  const second = await importText(t, 'a.csv', `${header}\na,shop-1,one\nb,shop-2,two\n`);
  t.match(second, { imported: true, subscriptions: 1, plan: { alreadyThere: 1, notes: [] } });
  const third = await importText(t, 'a.csv', `${header}\na,shop-1,three\n`);
  t.match(third.plan, { alreadyThere: 1, notes: [{ note: /another credential/, lines: 1 }] });
  const file = path.join(t.testdir({}), 'a.csv');
  writeFileSync(file, `${header}\na,shop-1,one\n`);
  t.equal((await core('subscription', 'import', file)).exitCode, 0, 'nothing new is no failure');
  const dry = await core('import', 'csv', file, '--dry-run');
  t.match(dry, { exitCode: 0, stdout: /^there already +1$/m });
});

t.test('what has no end, or can be read only once, is refused at once', async (t) => {
  const folder = t.testdir({ folder: {} });
  const pipe = path.join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const kinds = [
    [pipe, /is a pipe and no file/],
    ['/dev/zero', /is a device and no file/],
    [path.join(folder, 'folder'), /is a folder and no file/],
    [path.join(folder, 'none'), /cannot be read: ENOENT/],
  ] as const;
  for (const [file, message] of kinds) {
    for (const panel of ['marzban', '3x-ui', 'remnawave']) {
      const run = await core('import', panel, file, '--dry-run');
      t.match(run, { exitCode: 1, stderr: message }, `${panel} ${file}`);
    }
    const run = await core('import', 'csv', file, '--format', 'csv', '--dry-run');
    t.match(run, { exitCode: 1, stderr: message }, file);
  }
});

t.test('a line without an end is a bad line before its end is read', async (t) => {
  let chunks = 0;
  async function* endless() {
    for (;;) {
      chunks += 1;
      yield Buffer.alloc(1_000);
    }
  }
  for await (const line of splitLines(endless(), 4_500)) {
    t.same(line, { line: 1, text: undefined });
    break;
  }
  t.equal(chunks, 5);
  async function* lines() {
    for (const text of ['a\nbb', 'bbb', 'b\nc', '\n', 'dddddd', '\ne']) yield Buffer.from(text);
  }
  const texts: (string | undefined)[] = [];
  for await (const { line, text } of splitLines(lines(), 5)) texts[line - 1] = text;
  t.same(texts, ['a', undefined, 'c', undefined, 'e']);
});

t.test('the same credential on two protocols, and null in an NDJSON line, are taken', async (t) => {
  const same = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11';
  const csv = `user,link_1,link_2\nsame,${same},${same}\n`;
  t.match(await importText(t, 'same.csv', csv), { imported: true, subscriptions: 1 });
  const held = await readLinks(pool, { subscriptionId: 1 });
  t.same(
    held.map((link) => link.credential),
    [same, same],
  );
  const line = '{"user":"nd","link_1":null,"status":"active"}';
  t.match(await importText(t, 'null.ndjson', line), { imported: true, subscriptions: 1 });
});
