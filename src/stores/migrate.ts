import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { projectRoot } from '../root.ts';
import { advisoryLocks, lockUntilCommit } from './advisory-locks.ts';
import { type ClickHouseClient, clickhouseDatabase, createClickHouse } from './clickhouse.ts';
import { inTransaction } from './postgres.ts';

interface Migration {
  version: number;
  name: string;
  sql: string;
  /** SHA-256 of the file in hex, since an applied migration must not change. */
  hash: string;
}

/** The numbered files of a folder, in order and without gaps. */
export async function readMigrations(folder: string): Promise<Migration[]> {
  const names = (await readdir(path.join(projectRoot, folder)))
    .filter((name) => /^\d{6}-.+\.sql$/.test(name))
    .sort();
  const migrations: Migration[] = [];
  for (const name of names) {
    const sql = await readFile(path.join(projectRoot, folder, name), 'utf8');
    const version = Number(name.slice(0, 6));
    if (version !== migrations.length + 1) {
      throw new CoreError('MIGRATION_FAILED', `${folder}/${name} is out of order`);
    }
    migrations.push({ version, name, sql, hash: createHash('sha256').update(sql).digest('hex') });
  }
  return migrations;
}

/**
 * The migrations that have not been applied yet.
 * @throws CoreError MIGRATION_FAILED if an applied one differs from its file, or if the database is ahead of
 * this version of Core.
 */
function pending(
  folder: string,
  files: readonly Migration[],
  applied: readonly { version: number; hash: string }[],
): Migration[] {
  for (const row of applied) {
    const file = files.find((candidate) => candidate.version === row.version);
    if (file === undefined) {
      throw new CoreError(
        'MIGRATION_FAILED',
        `The database has migration ${folder}/${row.version}, which this version of Core lacks`,
      );
    }
    if (file.hash !== row.hash) {
      throw new CoreError(
        'MIGRATION_FAILED',
        `${folder}/${file.name} was changed after it was applied`,
      );
    }
  }
  const done = new Set(applied.map((row) => row.version));
  return files.filter((file) => !done.has(file.version));
}

/** Applies the first migration that is pending, and returns its name. */
async function applyNext(
  client: pg.PoolClient,
  files: readonly Migration[],
): Promise<string | undefined> {
  await lockUntilCommit(client, advisoryLocks.migrations);
  const applied = await client.query<{ version: number; hash: string }>(
    'SELECT version, hash FROM migrations ORDER BY version',
  );
  const next = pending('postgres', files, applied.rows)[0];
  if (next === undefined) return undefined;
  await client.query('INSERT INTO migrations (version, name, hash) VALUES ($1, $2, $3)', [
    next.version,
    next.name,
    next.hash,
  ]);
  try {
    await client.query(next.sql);
  } catch (cause) {
    throw new CoreError('MIGRATION_FAILED', `postgres/${next.name} failed`, { cause });
  }
  return next.name;
}

/**
 * Brings Postgres to the newest version. Each migration is one transaction that adds its version row first,
 * so that a second runner fails on the key instead of running the file twice.
 */
export async function migratePostgres(pool: pg.Pool, log: Logger): Promise<void> {
  const files = await readMigrations('postgres');
  await inTransaction(pool, async (client) => {
    await lockUntilCommit(client, advisoryLocks.migrations);
    await client.query(`CREATE TABLE IF NOT EXISTS migrations (
      version integer PRIMARY KEY, name text NOT NULL, hash text NOT NULL,
      applied_at timestamptz NOT NULL DEFAULT now())`);
  });
  for (;;) {
    const ran = await inTransaction(pool, (client) => applyNext(client, files));
    if (ran === undefined) return;
    log.info({ migration: ran }, 'postgres migrated');
  }
}

/**
 * Makes the ClickHouse database if it is missing, and brings it to the newest version. ClickHouse has no
 * transactions. So every statement can run again (`IF NOT EXISTS`), and the version row comes last. The
 * lock in Postgres keeps two runners apart.
 */
export async function migrateClickHouse(url: string, pool: pg.Pool, log: Logger): Promise<void> {
  const files = await readMigrations('clickhouse');
  const database = clickhouseDatabase(url);
  const bootstrapUrl = new URL(url);
  bootstrapUrl.pathname = '/default';
  const bootstrap = createClickHouse(bootstrapUrl.href);
  const clickhouse = createClickHouse(url);
  try {
    await inTransaction(pool, async (client) => {
      await lockUntilCommit(client, advisoryLocks.migrations);
      if (database !== 'default') {
        await bootstrap.command({
          query: 'CREATE DATABASE IF NOT EXISTS {database:Identifier}',
          query_params: { database },
        });
      }
      await applyClickHouse(clickhouse, files, log);
    });
  } finally {
    await bootstrap.close();
    await clickhouse.close();
  }
}

async function applyClickHouse(
  clickhouse: ClickHouseClient,
  files: readonly Migration[],
  log: Logger,
): Promise<void> {
  await clickhouse.command({
    query: `CREATE TABLE IF NOT EXISTS migrations
      (version UInt32, name String, hash String, applied_at DateTime('UTC') DEFAULT now())
      ENGINE = MergeTree ORDER BY version`,
  });
  const rows = await clickhouse.query({
    query: 'SELECT version, hash FROM migrations ORDER BY version',
    format: 'JSONEachRow',
  });
  const applied = await rows.json<{ version: number; hash: string }>();
  for (const next of pending('clickhouse', files, applied)) {
    for (const statement of statements(next.sql)) {
      try {
        await clickhouse.command({ query: statement });
      } catch (cause) {
        throw new CoreError('MIGRATION_FAILED', `clickhouse/${next.name} failed`, { cause });
      }
    }
    await clickhouse.insert({
      table: 'migrations',
      values: [{ version: next.version, name: next.name, hash: next.hash }],
      format: 'JSONEachRow',
      clickhouse_settings: { async_insert: 0 },
    });
    log.info({ migration: next.name }, 'clickhouse migrated');
  }
}

/** ClickHouse takes one statement per request. A statement ends with `;` at the end of a line. */
function statements(sql: string): string[] {
  return sql
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');
}
