import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import { projectRoot } from '../../src/root.ts';
import { commandLine } from '../support/cli.ts';
import { hiddenCharacters } from '../support/hidden-characters.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2 });
const { pool } = stores;
const { core, json } = commandLine(stores.environment);
const folder = t.testdir({});

/** One text with all hidden characters that Postgres can store. */
const odd = Object.values(hiddenCharacters)
  .filter((character) => character !== '\u0000' && !/\p{Cs}/u.test(character))
  .join('x');
const raw = /[^\P{C}\n]|[\p{Zl}\p{Zp}]/u;

/** Columns that the test fills with hidden characters itself, past the checks of Core. */
const columns = {
  users: ['name'],
  nodes: ['name', 'host', 'region', 'ip', 'reported_name', 'reported_host', 'reported_region'],
  node_reports: ['message', 'code'],
  segments: ['last_error'],
  rejected_rows: ['reason'],
};
const oddJson = JSON.stringify({ [odd]: odd, a: [odd] });

t.before(async () => {
  await core('migrate');
  await json('node', 'create', '--name', 'n');
  await json('protocol', 'add', '--node', '1', '--protocol', 'TROJAN', '--port', '443');
  await json('user', 'create', '--name', 'alice');
  await json('subscription', 'create', '--user', '1');
  await pool.query(`
    INSERT INTO node_reports (node_id, kind, revision, message, code) VALUES (1, 'error', 1, '', '');
    INSERT INTO streams (stream, kind, shard) VALUES ('s', 'usage', 0);
    INSERT INTO segments (stream, seq, first_id, last_id, rows, bytes, appended_bytes)
      VALUES ('s', 1, '1-1', '1-1', 1, 1, 1);
    INSERT INTO rejected_rows (segment_id, month, position, kind, row_bytes, row_json, reason)
      SELECT id, 202601, 0, 'usage', '', '{}', '' FROM segments`);
  for (const [table, names] of Object.entries(columns)) {
    for (const name of names) await pool.query(`UPDATE ${table} SET ${name} = $1`, [odd]);
  }
  await pool.query(
    `UPDATE nodes SET error_message = $1, error_code = $1, error_details = $2, publish_error = $1,
       maintenance_at = now(), maintenance_reason = $1, change_causes = ARRAY[$1]`,
    [odd, oddJson],
  );
  await pool.query(
    `INSERT INTO node_revisions (node_id, revision, content_hash, content_bytes, settings_hash, causes)
     VALUES (1, 1, '', 0, '', ARRAY[$1])`,
    [odd],
  );
  await pool.query(
    `INSERT INTO node_outbounds (node_id, tag, configured) VALUES (1, $1, false), (1, 'set', true)`,
    [odd],
  );
  await pool.query(
    `UPDATE node_outbounds SET protocol = 'freedom', settings = $1 WHERE configured`,
    [oddJson],
  );
  await pool.query('UPDATE node_protocols SET settings = settings || $1', [oddJson]);
  await pool.query('INSERT INTO routing_rules (node_id, position, rule) VALUES (1, 1, $1)', [
    oddJson,
  ]);
  await pool.query('UPDATE node_reports SET details = $1', [oddJson]);
  await pool.query('UPDATE rejected_rows SET row_json = $1', [oddJson]);
  await pool.query('UPDATE subscription_events SET data = $1', [oddJson]);
});

function isClean(t: Test, name: string, output: string): void {
  t.notMatch(output, raw, `${name}: ${JSON.stringify(raw.exec(output)?.[0])}`);
}

const listing: [...string[]][] = [
  ['node', 'list'],
  ['node', 'show', '1'],
  ['node', 'drift'],
  ['node', 'errors', '1'],
  ['node', 'revisions', '1'],
  ['protocol', 'list'],
  ['protocol', 'list', '--secrets'],
  ['outbound', 'list', '--node', '1'],
  ['outbound', 'list', '--node', '1', '--secrets'],
  ['rule', 'list', '--node', '1'],
  ['rule', 'list', '--node', '1', '--secrets'],
  ['user', 'list'],
  ['user', 'show', '1'],
  ['event', 'list'],
  ['segments'],
  ['segments', 'rejected'],
  ['sql', `SELECT '${odd}' AS \`${odd}\``],
];

for (const command of listing) {
  t.test(command.join(' ').replaceAll(/[^ -~]/g, '?'), async (t) => {
    const table = await core(...command);
    t.same([table.exitCode, table.stderr], [0, '']);
    isClean(t, 'text', table.stdout);
    t.match(table.stdout, /\\(x|u00)1b/, 'the text shows the characters as escapes');
    const printed = await core(...command, '--json');
    t.same([printed.exitCode, printed.stderr], [0, '']);
    isClean(t, '--json', printed.stdout);
    t.ok(
      JSON.stringify(JSON.parse(printed.stdout)).includes(JSON.stringify(odd).slice(1, -1)),
      'the JSON holds the stored text',
    );
  });
}

t.test('plans, reports and errors show hidden characters as escapes', async (t) => {
  const fleet = path.join(folder, 'fleet.yaml');
  writeFileSync(fleet, 'version: 1\nnodes: []\n');
  const broken = path.join(folder, 'broken.yaml');
  writeFileSync(broken, `version: 1\nnodes: [{ name: ${JSON.stringify(odd)}, ${odd}: 1 }]\n`);
  const users = path.join(folder, 'users.csv');
  writeFileSync(
    users,
    `user,limit\nalice,${odd.replace('\n', '')}\n${odd.replace('\n', '')},1GB\n`,
  );
  const header = path.join(folder, 'header.csv');
  writeFileSync(header, `user,${odd.replace('\n', '')}\n`);
  const commands = [
    ['apply', fleet, '--prune', '--dry-run'],
    ['apply', broken],
    ['apply', path.join(folder, odd.replace('\u0000', ''))],
    ['subscription', 'import', users],
    ['subscription', 'import', header],
    [odd],
    ['node', odd],
    ['node', 'show', odd],
    ['node', 'show', '1', `--${odd}`],
    ['help', odd],
    ['link', 'show', odd],
    ['sql', `SELECT '${odd}' FROM nowhere`],
  ];
  for (const command of commands) {
    for (const more of [[], ['--json']]) {
      const name = [...command, ...more].join(' ').replaceAll(/[^ -~]/g, '?');
      const { stdout, stderr } = await core(...command, ...more);
      t.not(stdout + stderr, '', `${name} writes something`);
      isClean(t, name, stdout + stderr);
    }
  }
});

t.test('the log of the program shows hidden characters as escapes', async (t) => {
  const program = path.join(projectRoot, 'dist/src/bin/core.js');
  const database = `${stores.databaseUrl}%C2%9B%1B%E2%80%AE`;
  const child = spawn(process.execPath, [program, 'serve'], {
    env: { ...process.env, ...stores.environment, CORE_LOG_LEVEL: 'trace', DATABASE_URL: database },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const [stderr] = await Promise.all([text(child.stderr), once(child, 'close')]);
  t.match(stderr, 'does not exist');
  t.match(stderr, '\\u009b', 'the log has the name');
  isClean(t, 'log', stderr);
});

t.test('nothing else in src/cli writes to a terminal', async (t) => {
  const files = readdirSync(path.join(projectRoot, 'src/cli'), {
    recursive: true,
    encoding: 'utf8',
  });
  const writers = files.filter(
    (file) =>
      file.endsWith('.ts') &&
      /\b(stdout|stderr)\s*\.write\b|\bconsole\.|\bprocess\.std(out|err)|\bwriteSync\b/.test(
        readFileSync(path.join(projectRoot, 'src/cli', file), 'utf8'),
      ),
  );
  t.same(writers.sort(), ['context.ts', 'program.ts']);
});
