import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Redis } from 'ioredis';
import pg from 'pg';
import t, { type Test } from 'tap';
import { readConfig } from '../../../src/config.ts';
import { readSecrets, type Secrets, secretsFile, withSecrets } from '../../../src/secrets.ts';
import { settingsOnFreePorts, startCore } from '../../support/core-process.ts';

// As in docs/security.md: stop Core, remove the line of a password, and start Core.

const names = [
  'postgresSuperuser',
  'postgres',
  'redis',
  'clickhouse',
  'clickhouseAnalyst',
] as const satisfies readonly (keyof Secrets)[];

const dataDir = path.join(t.testdir({}), 'data');
const settings = await settingsOnFreePorts(dataDir);

/** The passwords that the running stores accept. */
async function taken(secrets: Secrets): Promise<string[]> {
  const { stores } = withSecrets(readConfig(settings), secrets);
  const found = await Promise.all([
    takenByPostgres('postgres', secrets.postgresSuperuser),
    takenByPostgres('core', secrets.postgres),
    takenByRedis(stores.redisUrl),
    takenByClickHouse('core', secrets.clickhouse),
    takenByClickHouse('analyst', secrets.clickhouseAnalyst),
  ]);
  return names.filter((_, at) => found[at]);
}

async function takenByPostgres(user: string, password: string): Promise<boolean> {
  const at = { host: '127.0.0.1', port: Number(settings.CORE_POSTGRES_PORT), database: 'core' };
  const client = new pg.Client({ ...at, user, password });
  try {
    await client.connect();
    return true;
  } catch (thrown) {
    // SQLSTATE 28P01: a wrong password.
    if ((thrown as { code?: string }).code !== '28P01') throw thrown;
    return false;
  } finally {
    await client.end();
  }
}

async function takenByRedis(url: string): Promise<boolean> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: null });
  redis.on('error', () => undefined);
  try {
    return (await redis.ping()) === 'PONG';
  } catch (thrown) {
    if (!/NOAUTH|WRONGPASS/.test(`${thrown} ${(thrown as Error).cause}`)) throw thrown;
    return false;
  } finally {
    redis.disconnect();
  }
}

async function takenByClickHouse(user: string, password: string): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${settings.CORE_CLICKHOUSE_PORT}/`, {
    method: 'POST',
    headers: { 'x-clickhouse-user': user, 'x-clickhouse-key': password },
    body: 'SELECT 1',
  });
  const answer = await response.text();
  if (!response.ok && !answer.includes('AUTHENTICATION_FAILED')) throw new Error(answer);
  return response.ok;
}

/** Starts Core. Returns its secrets, and those of `before` that its stores still accept. */
async function inOneRun(t: Test, before?: Secrets) {
  const core = startCore(t, ['up'], settings);
  await core.line(/^core ready/);
  const secrets = readSecrets(dataDir) as Secrets;
  t.same(await taken(secrets), names, 'every password in the file is taken');
  const stillTaken = before === undefined ? [] : await taken(before);
  core.signal('SIGTERM');
  t.same(await core.exited, { code: 0, signal: null });
  return { secrets, stillTaken };
}

/** Removes lines as an editor does: the other lines stay, and so does the comma of the last one. */
function takeOut(t: Test, gone: readonly (keyof Secrets)[]): void {
  const lines = readFileSync(secretsFile(dataDir), 'utf8').split('\n');
  const left = lines.filter((line) => !gone.some((name) => line.includes(`"${name}"`)));
  t.equal(left.length, lines.length - gone.length);
  writeFileSync(secretsFile(dataDir), left.join('\n'));
}

t.test('removing lines from the file of secrets makes new passwords', async (t) => {
  let { secrets: before } = await inOneRun(t);
  const last = 'clickhouseAnalyst';
  for (const gone of [[last], names.filter((name) => name !== last), names] as const) {
    takeOut(t, gone);
    const { secrets, stillTaken } = await inOneRun(t, before);
    const others = names.filter((name) => !(gone as readonly string[]).includes(name));
    t.same(stillTaken, others, `of the former ones all but ${gone.join(', ')}`);
    before = secrets;
  }
});
