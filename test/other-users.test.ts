import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import pg from 'pg';
import t, { type Test } from 'tap';
import { findProgram } from '../src/embedded/find-program.ts';
import { projectRoot } from '../src/root.ts';
import { readSecrets, type Secrets } from '../src/secrets.ts';
import { until } from './support/api.ts';
import { type CoreProcess, settingsOnFreePorts, startCore } from './support/core-process.ts';

// One Core for all tests, with the log level trace. If root runs them, the stranger is the user `nobody`.
// Otherwise the stranger is this user, and tests of what only ownership protects are skipped.

const run = promisify(execFile);
const isRoot = process.getuid?.() === 0;
const stranger = isRoot
  ? 'another user of the machine'
  : 'somebody without a password (not as root)';
const webhookSecret = 'of-the-webhook-0123456789';

const dataDir = mkdtempSync(path.join(os.tmpdir(), 'core-closed-'));
t.teardown(() => rmSync(dataDir, { recursive: true, force: true }));
// The folder is open, so that each file has to be closed by itself.
chmodSync(dataDir, 0o755);
const settings = { ...(await settingsOnFreePorts(dataDir)), CORE_LOG_LEVEL: 'trace' };
const [port, postgresPort, redisPort, clickhousePort] = [
  settings.CORE_PORT,
  settings.CORE_POSTGRES_PORT,
  settings.CORE_REDIS_PORT,
  settings.CORE_CLICKHOUSE_PORT,
].map(Number);
const core = startCore(t, ['up'], {
  ...settings,
  CORE_WEBHOOK_URL: `http://127.0.0.1:${port}/none`,
  CORE_WEBHOOK_SECRET: webhookSecret,
});
/** Command lines of the programs that ran below Core while it started. */
const commandLines = new Set<string>();
const watching = setInterval(() => {
  for (const pid of descendants(core.pid)) commandLines.add(readProc(pid, 'cmdline'));
}, 25);
t.teardown(() => clearInterval(watching));
await core.line(/^core ready/);
clearInterval(watching);
const secrets = readSecrets(dataDir) as Secrets;
const secretValues = [...Object.values(secrets), webhookSecret];

function readProc(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch {
    // The process has ended.
    return '';
  }
}

/** Process ids of Core and of all below it. */
function descendants(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const parent = Number(/^PPid:\s+(\d+)$/m.exec(readProc(Number(name), 'status'))?.[1]);
    children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const found = [root];
  for (const pid of found) found.push(...(children.get(pid) ?? []));
  return found;
}

interface Asked {
  postgres: { port: number; user: string; password?: string; database: string }[];
  redis: { port: number; lines: string[] }[];
  read: string[];
  write: string[];
}

interface Found {
  uid: number;
  postgres: string[];
  redis: string[][];
  read: string[];
  write: string[];
}

/** What happens if `nobody` tries. */
async function asStranger(asked: Partial<Asked>): Promise<Found> {
  const nobody = readFileSync('/etc/passwd', 'utf8').match(/^nobody:[^:]*:(\d+):(\d+):/m);
  const user = isRoot ? [nobody?.[1] ?? '65534', nobody?.[2] ?? '65534'] : ['-', '-'];
  const program = path.join(projectRoot, 'test', 'fixtures', 'stranger.mjs');
  // An empty environment, because tap's loader in it would write into the checkout.
  const command = ['-i', process.execPath, program, ...user];
  const child = spawn('env', command, { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  child.stdin.end(JSON.stringify({ postgres: [], redis: [], read: [], write: [], ...asked }));
  const answer = await text(child.stdout);
  await exited;
  const found = JSON.parse(answer) as Found;
  if (isRoot && found.uid === 0) throw new Error('it is still root');
  return found;
}

t.test(`Postgres lets ${stranger} in only with the password that it made`, async (t) => {
  const wrong = 'x'.repeat(43);
  const attempts = ['core', 'postgres', 'nobody', 'root'].flatMap((user) =>
    ['core', 'postgres', 'template1'].flatMap((database) =>
      [undefined, '', user, wrong].map((password) => ({
        port: postgresPort as number,
        user,
        database,
        ...(password === undefined ? {} : { password }),
      })),
    ),
  );
  const { postgres } = await asStranger({ postgres: attempts });
  t.equal(postgres.length, 48);
  // 28P01: wrong password; 28000: no such role may connect; the client itself refuses an empty one.
  const refused = /^(28P01|28000|SASL: .*client password must be .*string)$/;
  t.strictSame(
    postgres.filter((outcome) => !refused.test(outcome)),
    [],
  );
  const { postgres: right } = await asStranger({
    postgres: [
      { port: postgresPort as number, user: 'core', database: 'core', password: secrets.postgres },
    ],
  });
  t.strictSame(right, ['connected'], 'the attempts went to the right place');
});

t.test(`Redis answers ${stranger} nothing and stores nothing`, async (t) => {
  const ask = (...lines: string[]) => ({ port: redisPort as number, lines });
  const { redis } = await asStranger({
    redis: [
      ask('PING', 'KEYS *', 'SET a b', 'CONFIG GET requirepass', 'FLUSHALL', 'SHUTDOWN NOSAVE'),
      ask('AUTH wrong', 'PING'),
      ask('AUTH default wrong', 'PING'),
      ask('HELLO 3', 'PING'),
      ask(`AUTH ${secrets.redis}`, 'PING'),
    ],
  });
  for (const answers of redis.slice(0, -1)) {
    t.strictSame(
      answers.filter((one) => !/^(-NOAUTH|-WRONGPASS|\+OK$)/.test(one)),
      [],
    );
    t.match(answers[0], /^-(NOAUTH|WRONGPASS)/);
  }
  t.strictSame(redis.at(-1), ['+OK', '+PONG', '+OK'], 'with the password it answers');
});

t.test(
  `${stranger} can read no file of the data directory and no environment of a process`,
  { skip: isRoot ? false : 'this user owns all of them' },
  async (t) => {
    const inDataDir = (...names: string[]) => path.join(dataDir, ...names);
    const closed = [
      ...['secrets.json', 'redis', 'redis/redis.conf', 'redis/appendonlydir', 'postgres'],
      ...['postgres/PG_VERSION', 'postgres/pg_hba.conf', 'postgres/base', 'clickhouse'],
      ...readdirSync(inDataDir('logs')).map((name) => path.join('logs', name)),
    ].map((name) => inDataDir(name));
    const pids = descendants(core.pid);
    t.ok(pids.length > 8, 'Core, its roles, its servers and their processes');
    const environments = pids.map((pid) => `/proc/${pid}/environ`);
    const { read, write } = await asStranger({
      read: [...closed, ...environments],
      write: [...closed.filter((file) => statSync(file).isFile()), inDataDir('new')],
    });
    t.strictSame([...new Set(read)], ['EACCES']);
    t.strictSame([...new Set(write)], ['EACCES']);
    writeFileSync(inDataDir('open'), '', { mode: 0o644 });
    const { read: open } = await asStranger({ read: [inDataDir('open')] });
    t.strictSame(open, ['done'], 'the test has opened the data directory itself');
    t.equal(statSync(inDataDir('secrets.json')).mode & 0o777, 0o600);
    t.equal(statSync(inDataDir('redis', 'redis.conf')).mode & 0o777, 0o600);
  },
);

async function inPostgres<T>(
  user: 'core' | 'postgres',
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const password = user === 'core' ? secrets.postgres : secrets.postgresSuperuser;
  const client = new pg.Client({
    host: '127.0.0.1',
    port: postgresPort as number,
    user,
    password,
    database: user,
  });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

t.test(
  'Core’s role in Postgres can run no program, read no file and become nobody else',
  async (t) => {
    const refused = [
      "COPY users FROM PROGRAM 'id'",
      "COPY (SELECT 1) TO PROGRAM 'cat'",
      "COPY users FROM '/etc/passwd'",
      "COPY (SELECT 1) TO '/tmp/core-copied'",
      "SELECT pg_read_file('/etc/shadow')",
      "SELECT pg_read_file('postgresql.conf')",
      "SELECT pg_read_binary_file('/etc/passwd')",
      "SELECT pg_ls_dir('/')",
      "SELECT pg_stat_file('/etc/passwd')",
      "SELECT lo_import('/etc/passwd')",
      "SELECT lo_export(1, '/tmp/core-exported')",
      "ALTER SYSTEM SET log_statement = 'all'",
      "SET log_statement = 'all'",
      'SELECT pg_reload_conf()',
      'SELECT rolpassword FROM pg_authid',
      'ALTER ROLE core SUPERUSER',
      'ALTER ROLE core CREATEROLE',
      "ALTER ROLE postgres PASSWORD 'x'",
      'CREATE ROLE another',
      'CREATE DATABASE another',
      'SET ROLE postgres',
      'SET SESSION AUTHORIZATION postgres',
      'GRANT pg_execute_server_program TO core',
      'GRANT pg_read_server_files TO core',
      'CREATE EXTENSION file_fdw',
      'CREATE EXTENSION dblink',
      'CREATE EXTENSION plpython3u',
      "CREATE FUNCTION f() RETURNS void LANGUAGE c AS 'libc', 'system'",
      "CREATE TABLESPACE t LOCATION '/tmp'",
      "LOAD '/etc/passwd'",
    ];
    await inPostgres('core', async (client) => {
      for (const statement of refused) {
        const outcome = await client.query(statement).then(
          () => 'done',
          (thrown: { code?: string }) => thrown.code,
        );
        t.equal(outcome, '42501', statement);
      }
      const { rows } = await client.query(
        `SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
         (SELECT count(*)::int FROM pg_auth_members WHERE member = r.oid) AS memberships,
         (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'core') AS owner
       FROM pg_roles r WHERE rolname = 'core'`,
      );
      const none = { rolsuper: false, rolcreaterole: false, rolcreatedb: false };
      t.strictSame(rows, [
        { ...none, rolreplication: false, rolbypassrls: false, memberships: 0, owner: 'core' },
      ]);
    });
  },
);

t.test(
  'even Postgres’ superuser cannot read a file of root',
  { skip: isRoot ? false : 'Postgres is this user' },
  async (t) => {
    const secretFile = path.join(dataDir, 'root-only');
    writeFileSync(secretFile, 'secret of root', { mode: 0o600 });
    await inPostgres('postgres', async (client) => {
      for (const file of [secretFile, path.join(dataDir, 'secrets.json'), '/etc/shadow']) {
        const reading = client.query('SELECT pg_read_file($1)', [file]);
        await t.rejects(reading, { message: /Permission denied/ }, file);
      }
      await client.query('CREATE TEMP TABLE ran (line text)');
      await client.query("COPY ran FROM PROGRAM 'id -u; id -ru; id -G'");
      const { rows } = await client.query<{ line: string }>('SELECT line FROM ran');
      const { uid, gid } = statSync(path.join(dataDir, 'postgres'));
      t.not(uid, 0);
      t.strictSame(
        rows.map((row) => row.line),
        [`${uid}`, `${uid}`, `${gid}`],
        'its programs run as a plain user, too, in no other group',
      );
    });
  },
);

t.test('Postgres does not get the settings that hold secrets', async (t) => {
  await inPostgres('postgres', async (client) => {
    await client.query('CREATE TEMP TABLE ran (line text)');
    await client.query("COPY ran FROM PROGRAM $$env | grep -aoE '^[A-Z_]+='$$");
    const { rows } = await client.query<{ line: string }>('SELECT line FROM ran');
    const names = rows.map(({ line }) => line.split('=')[0]);
    t.ok(names.includes('CORE_DATA_DIR'), 'it is the environment of Core');
    t.notOk(names.includes('CORE_WEBHOOK_SECRET'));
    t.notOk(names.includes('CORE_WEBHOOK_URL'));
  });
});

t.test('Redis refuses dangerous commands, even with the password', async (t) => {
  const redis = new Redis({ port: redisPort as number, password: secrets.redis });
  t.teardown(() => redis.disconnect());
  await t.rejects(redis.call('DEBUG', 'SLEEP', '0'), /DEBUG command not allowed/);
  await t.rejects(redis.call('MODULE', 'LOAD', '/tmp/x.so'), /MODULE command not allowed/);
  await t.rejects(redis.config('SET', 'dir', '/tmp'), /protected config/);
});

t.test('core stores prints URLs for other tools', async (t) => {
  const show = async (...args: string[]): Promise<CoreProcess> => {
    const shown = startCore(t, ['stores', ...args], settings);
    t.equal((await shown.exited).code, 0);
    return shown;
  };
  const masked = [await show(), await show('--json')].flatMap(({ stdout }) => stdout).join('\n');
  for (const secret of secretValues) t.notOk(masked.includes(secret));
  t.match(masked, `postgres://core:***@127.0.0.1:${postgresPort}/core`);
  const [revealed = ''] = (await show('--json', '--reveal')).stdout;
  const urls = JSON.parse(revealed) as Record<string, string>;
  t.strictSame(Object.keys(urls), ['postgres', 'redis', 'clickhouse', 'clickhouseAnalyst']);
  t.equal(
    urls['clickhouseAnalyst'],
    `http://analyst:${secrets.clickhouseAnalyst}@127.0.0.1:${clickhousePort}/core`,
  );
  const table = (await show('--reveal')).stdout.join('\n');
  for (const url of Object.values(urls)) t.ok(table.includes(url));

  const { stdout: pong } = await run('redis-cli', ['-u', urls['redis'] ?? '', 'PING']);
  t.equal(pong.trim(), 'PONG');
  const answer = new URL(urls['clickhouse'] ?? '');
  const login = `${answer.username}:${answer.password}`;
  const query = `${answer.origin}/?database=core&query=SELECT+count()+FROM+usage`;
  t.equal((await run('curl', ['-sS', '--user', login, query])).stdout.trim(), '0');
  const psql = await findProgram('psql');
  if (psql === undefined) t.comment('no psql here: pg in its place');
  const statement = 'SELECT count(*) FROM users';
  const counted =
    psql === undefined
      ? await countUsers(urls['postgres'] ?? '')
      : (await run(psql, [urls['postgres'] ?? '', '-tAc', statement])).stdout.trim();
  t.equal(counted, '0');
});

async function countUsers(connectionString: string): Promise<string | undefined> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query<{ count: string }>('SELECT count(*) FROM users')).rows[0]?.count;
  } finally {
    await client.end();
  }
}

/** Makes both stores refuse Core's passwords for a while, so that Core logs its failures to log in. */
async function refuseCore(t: Test): Promise<void> {
  const redis = new Redis({ port: redisPort as number, password: secrets.redis });
  const ready = async (): Promise<number> =>
    (await fetch(`http://127.0.0.1:${port}/readyz`)).status;
  try {
    await redis.config('SET', 'requirepass', 'another');
    await redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await inPostgres('postgres', async (client) => {
      await client.query("ALTER ROLE core PASSWORD 'another'");
      await client.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'core'",
      );
      t.equal(await until(ready, (status) => status === 503), 503);
      await until(
        async () => core.stderr.some((line) => /WRONGPASS/.test(line)),
        (told) => told,
      );
      await client.query(`ALTER ROLE core PASSWORD '${secrets.postgres}'`);
    });
  } finally {
    await redis.config('SET', 'requirepass', secrets.redis);
    redis.disconnect();
  }
  t.equal(await until(ready, (status) => status === 200), 200);
}

t.test('no secret is in an argument, a log or an error', async (t) => {
  await refuseCore(t);
  core.signal('SIGTERM');
  t.equal((await core.exited).code, 0);
  const lines = [...commandLines];
  for (const program of ['initdb', 'postgres\0--single', 'redis-server', 'clickhouse/server.js']) {
    t.ok(
      lines.some((line) => line.includes(program)),
      `${program.replace('\0', ' ')} was seen`,
    );
  }
  const logs = readdirSync(path.join(dataDir, 'logs')).map((name): [string, string] => [
    name,
    readFileSync(path.join(dataDir, 'logs', name), 'utf8'),
  ]);
  const places = new Map<string, string>([
    ['arguments', lines.join('\n')],
    ['stdout', core.stdout.join('\n')],
    ['stderr', core.stderr.join('\n')],
    ...logs,
  ]);
  t.match(places.get('postgres.log'), 'password authentication failed for user "core"');
  for (const [place, content] of places) {
    const found = secretValues.filter((secret) => content.includes(secret));
    t.strictSame(found, [], place);
  }
});
