import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type sqlite from 'node-sqlite3-wasm';
import t from 'tap';
import type { AccountLine } from '../../src/panels/account.ts';
import { openPanel, type Panel } from '../../src/panels/open.ts';
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
