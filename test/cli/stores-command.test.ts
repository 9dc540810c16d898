import t from 'tap';
import { maskPassword } from '../../src/processes/reachable.ts';
import { makeSecrets } from '../../src/secrets.ts';
import { commandLine } from '../support/cli.ts';

// test/other-users.test.ts uses the URLs with other tools, because it has the servers.

/** Runs `core stores` with these settings. */
const stores = (settings: Record<string, string>, ...args: string[]) =>
  commandLine(settings).core('stores', ...args);

t.test('the URLs of embedded stores are masked without --reveal', async (t) => {
  const dataDir = t.testdir({});
  const secrets = makeSecrets(dataDir);
  const settings = { CORE_DATA_DIR: dataDir };
  const masked = {
    postgres: 'postgres://core:***@127.0.0.1:15432/core',
    redis: 'redis://default:***@127.0.0.1:16379',
    clickhouse: 'http://core:***@127.0.0.1:8123/core',
    clickhouseAnalyst: 'http://analyst:***@127.0.0.1:8123/core',
  };
  t.strictSame(JSON.parse((await stores(settings, '--json')).stdout), masked);
  const table = (await stores(settings)).stdout;
  for (const url of Object.values(masked)) t.match(table, url);
  t.match(table, /^--reveal shows the passwords\.$/m);
  t.strictSame(JSON.parse((await stores(settings, '--json', '--reveal')).stdout), {
    postgres: masked.postgres.replace('***', secrets.postgres),
    redis: masked.redis.replace('***', secrets.redis),
    clickhouse: masked.clickhouse.replace('***', secrets.clickhouse),
    clickhouseAnalyst: masked.clickhouseAnalyst.replace('***', secrets.clickhouseAnalyst),
  });
});

t.test('external stores are shown as they are set, and without an analyst', async (t) => {
  const settings = {
    CORE_DATA_DIR: t.testdir({}),
    DATABASE_URL: 'postgres://u:of-postgres@db.example.net/core',
    REDIS_URL: 'rediss://:of-redis@cache.example.net:6380/1',
    CLICKHOUSE_URL: 'https://u:of-clickhouse@rows.example.net/core',
  };
  t.strictSame(JSON.parse((await stores(settings, '--json', '--reveal')).stdout), {
    postgres: settings.DATABASE_URL,
    redis: settings.REDIS_URL,
    clickhouse: settings.CLICKHOUSE_URL,
    clickhouseAnalyst: null,
  });
  const table = (await stores(settings)).stdout;
  t.notMatch(table, /of-(postgres|redis|clickhouse)|analyst/i);
  t.match(table, 'rediss://:***@cache.example.net:6380/1');
});

t.test('before the first start there are no passwords, and the error says so', async (t) => {
  const never = { CORE_DATA_DIR: t.testdir({}) };
  const { exitCode, stdout, stderr } = await stores(never, '--json', '--reveal');
  t.equal(exitCode, 1);
  t.equal(stdout, '');
  t.match(JSON.parse(stderr), {
    error: { code: 'SECRETS_UNUSABLE', message: /no file of secrets .*first start of core up/ },
  });
});

t.test('a password is masked wherever it is in a URL', async (t) => {
  for (const [url, masked] of [
    ['redis://:p@h:6379', 'redis://:***@h:6379'],
    ['redis://h:6379/0?password=p&db=1', 'redis://h:6379/0?password=***&db=1'],
    ['postgres://u@h/d?password=p&sslpassword=p', 'postgres://u@h/d?password=***&sslpassword=***'],
    ['https://h/d?access_token=p', 'https://h/d?access_token=***'],
    ['postgres://u:p%40@h/d', 'postgres://u:***@h/d'],
    ['http://h:8123/core', 'http://h:8123/core'],
  ] as const) {
    t.equal(maskPassword(url), masked);
  }
});
