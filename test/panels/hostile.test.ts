import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import type sqlite from 'node-sqlite3-wasm';
import t from 'tap';
import type { AccountLine } from '../../src/panels/account.ts';
import { importPanel, openPanel, type Panel } from '../../src/panels/open.ts';
import {
  createDatabase,
  makeUsers,
  threeXUiSchema,
  writeMarzban,
  writeThreeXUi,
} from '../support/panel-files.ts';

const users = makeUsers(300);

async function read(panel: Panel, file: string): Promise<AccountLine[]> {
  const opened = await openPanel(panel, file);
  try {
    const lines: AccountLine[] = [];
    for await (const line of opened.accounts()) lines.push(line);
    return lines;
  } finally {
    await opened.close();
  }
}

const refused = { code: 'INVALID_ARGUMENT' } as const;

t.test('a database that is cut off, overwritten or of something else is refused', async (t) => {
  const folder = t.testdir({});
  const file = path.join(folder, 'db.sqlite3');
  writeMarzban(file, users);
  const whole = readFileSync(file);
  const half = path.join(folder, 'half.sqlite3');
  writeFileSync(half, whole.subarray(0, Math.floor(whole.length / 2)));
  await t.rejects(read('marzban', half), { ...refused, message: /\.backup copy\.db/ });
  writeFileSync(half, whole.subarray(0, 40));
  await t.rejects(read('marzban', half), refused);
  const noise = Buffer.from(whole);
  noise.fill(0xa5, 4_096, Math.floor(whole.length / 2));
  writeFileSync(half, noise);
  await t.rejects(read('marzban', half), refused);
  await t.rejects(read('3x-ui', file), { ...refused, message: /no database of 3x-ui/ });
  const other = path.join(folder, 'x-ui.db');
  writeThreeXUi(other, users.slice(0, 3));
  await t.rejects(read('marzban', other), { ...refused, message: /no database of Marzban/ });
  const text = path.join(folder, 'text.db');
  writeFileSync(text, 'not a database');
  for (const panel of ['marzban', '3x-ui'] as const) {
    await t.rejects(read(panel, text), { ...refused, message: /it is no SQLite database/ });
  }
});

t.test('a write-ahead log that is missing is said', async (t) => {
  const folder = t.testdir({});
  const file = path.join(folder, 'x-ui.db');
  writeThreeXUi(file, users.slice(0, 3));
  const header = readFileSync(file);
  header.fill(2, 18, 20);
  writeFileSync(file, header);
  const opened = await openPanel('3x-ui', file);
  t.match(opened.warnings, [/there is no x-ui\.db-wal beside the file/]);
  await opened.close();
});

t.test('clients of 3x-ui that cannot be told apart, or are none, are named', async (t) => {
  const file = path.join(t.testdir({}), 'x-ui.db');
  createDatabase(file, threeXUiSchema, (db: InstanceType<typeof sqlite.Database>) => {
    const settings = [
      JSON.stringify({
        clients: [
          { id: 'a', email: 'a\u0000b' },
          { id: 'b' },
          { id: 'c', email: 'c', totalGB: -1 },
          { id: 'd', email: 'd', expiryTime: 9e15 },
          { id: 'e', email: 'e', totalGB: 'many' },
          { id: 'f', email: 'f' },
          5,
        ],
      }),
      '{"clients": [',
      '{}',
      '{"clients": {"x": 1}}',
    ];
    for (const [n, text] of settings.entries()) {
      db.run(
        `INSERT INTO inbounds (remark, enable, port, protocol, settings, tag)
         VALUES (?, 1, ?, 'vless', ?, ?)`,
        [`in ${n}`, 443 + n, text, `tag-${n}`],
      );
    }
  });
  const opened = await openPanel('3x-ui', file);
  t.match(opened.warnings, [/inbound 2 are no valid JSON/, /inbound 1 has 1 clients/]);
  await opened.close();
  const lines = await read('3x-ui', file);
  const faults = lines.map((line) => ('fault' in line ? line.fault : line.account.name));
  t.match(
    faults.filter((text) => /email|totalGB|expiryTime|^f$/.test(text)),
    [/without an email/, /totalGB/, /expiryTime/, /totalGB/, 'f'],
  );
});

t.test('JSON that is deep, cut off or without users is refused', async (t) => {
  const folder = t.testdir({});
  const at = (name: string, text: string): string => {
    const file = path.join(folder, name);
    writeFileSync(file, text);
    return file;
  };
  const element = '{"username":"a","status":"active"}';
  for (const panel of ['marzban', 'remnawave'] as const) {
    const cut = at('cut.json', `[${element},{"user`);
    await t.rejects(read(panel, cut), { ...refused, message: /ends in the middle/ });
    await t.rejects(read(panel, at('none.json', '{"detail":"Not authenticated"}')), refused);
    await t.rejects(read(panel, at('bad.json', `[${element},]]`)), refused);
    const deep = at('deep.json', `[${'['.repeat(200_000)}${']'.repeat(200_000)}]`);
    await t.rejects(read(panel, deep), { ...refused, message: /deep/ });
  }
  const lines = await read('marzban', at('odd.json', `[null,5,"x",[],{},${element}]`));
  t.same(
    lines.map((line) => 'fault' in line),
    [true, true, true, true, true, false],
  );
});

t.test('a name that no user of Core may have is a bad user', async (t) => {
  const names = ['a\u0000b', 'a\u001b[2J', 'a\u202eb', ' ', 'x'.repeat(256), '=cmd|calc'];
  const file = path.join(t.testdir({}), 'users.json');
  writeFileSync(file, JSON.stringify(names.map((username) => ({ username, status: 'active' }))));
  const opened = await openPanel('marzban', file);
  const options = { maps: new Map(), groupsOfLabels: new Map(), groups: ['default'] };
  const faults: string[] = [];
  for await (const line of importPanel(opened, 'marzban', [], options).lines()) {
    faults.push('fault' in line ? line.fault : 'taken');
  }
  t.match(faults, [
    /must not hold the character U\+0000 .*rename it in the panel/,
    /must not hold the character U\+001B/,
    /must not hold the character U\+202E/,
    /name is empty/,
    /over 255 characters/,
    'taken',
  ]);
});

t.test(
  'an element of JSON with too many values is refused before it fills the memory',
  async (t) => {
    const file = path.join(t.testdir({}), 'wide.json');
    const output = openSync(file, 'w');
    writeSync(output, '{"users":[[');
    for (let n = 0; n < 9; n += 1) writeSync(output, '1,'.repeat(1_000_000));
    writeSync(output, '1]]}');
    closeSync(output);
    await t.rejects(read('marzban', file), { ...refused, message: /over 8000000 values/ });
  },
);

t.test('what 3x-ui has and no subscription can have is said', async (t) => {
  const file = path.join(t.testdir({}), 'x-ui.db');
  const tables = `${threeXUiSchema}
    CREATE TABLE clients (id integer PRIMARY KEY, email text UNIQUE, enable numeric);`;
  createDatabase(file, tables, (db) => {
    for (const [n, total] of [0, 5_000_000_000].entries()) {
      const settings = JSON.stringify({ clients: [{ id: `id-${n}`, email: `in-${n}` }] });
      db.run(
        `INSERT INTO inbounds (remark, enable, port, protocol, settings, tag, total, expiry_time)
         VALUES (?, 1, ?, 'vless', ?, ?, ?, 0)`,
        [`inbound ${n}`, 443 + n, settings, `tag-${n}`, total],
      );
    }
    db.run("INSERT INTO clients (email, enable) VALUES ('in-0', 1), ('in-1', 1)");
    for (let n = 0; n < 7; n += 1) db.run('INSERT INTO clients (email) VALUES (?)', [`out-${n}`]);
  });
  const opened = await openPanel('3x-ui', file);
  t.match(opened.warnings, [
    /of an inbound as a whole is not kept: inbound 1$/,
    /in no inbound .* left out: out-0, out-1, out-2, out-3, out-4 and 2 more$/,
  ]);
  await opened.close();
});
