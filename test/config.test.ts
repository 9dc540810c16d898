import { readFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { readConfig } from '../src/config.ts';
import { settingsSchema } from '../src/environment.ts';
import { projectRoot } from '../src/root.ts';

t.test('defaults', async (t) => {
  const config = readConfig({ UNRELATED: 'x', CORE_PORT: '' });
  t.equal(config.http.host, '127.0.0.1');
  t.equal(config.http.port, 8080);
  t.same(
    [config.embedded.postgres, config.embedded.redis, config.embedded.clickhouse],
    [true, true, true],
  );
  t.match(config.stores.clickhouseUrl, '127.0.0.1:8123');
});

t.test('a URL replaces one embedded server', async (t) => {
  const config = readConfig({ DATABASE_URL: 'postgres://u:p@db.example.net/core' });
  t.equal(config.embedded.postgres, false);
  t.equal(config.embedded.redis, true);
  t.equal(config.stores.postgresUrl, 'postgres://u:p@db.example.net/core');
});

t.test('names of the embedded ClickHouse', async (t) => {
  const named = readConfig({ CORE_CLICKHOUSE_HOSTS: 'db.example.net,db' });
  t.same(named.embedded.clickhouseHosts, ['db.example.net', 'db']);
  t.same(readConfig({}).embedded.clickhouseHosts, []);
  for (const CORE_CLICKHOUSE_HOSTS of ['a b', 'a,', 'db:8123', '*']) {
    t.throws(() => readConfig({ CORE_CLICKHOUSE_HOSTS }), { code: 'INVALID_SETTINGS' });
  }
});

t.test('one error names every fault', async (t) => {
  t.throws(
    () => readConfig({ CORE_PORT: '70000', CORE_LOG_LEVEL: 'loud', REDIS_URL: 'http://x' }),
    { code: 'INVALID_SETTINGS', message: /CORE_PORT.*REDIS_URL.*CORE_LOG_LEVEL/ },
  );
});

t.test('two listeners cannot share one port', async (t) => {
  t.throws(() => readConfig({ CORE_PORT: '8081' }), {
    code: 'INVALID_SETTINGS',
    message: 'Invalid settings: CORE_ADMIN_PORT: must differ from CORE_PORT',
  });
  t.same(readConfig({ CORE_PORT: '8081', CORE_ADMIN_PORT: '8082' }).admin, {
    host: '127.0.0.1',
    port: 8082,
  });
});

t.test('.env.example lists every setting with its default and what it is for', async (t) => {
  const text = readFileSync(path.join(projectRoot, '.env.example'), 'utf8');
  const listed = [...text.matchAll(/^# ?(.+)\n#?([A-Z_]+)=(.*)$/gm)].map((m) => m.slice(1, 4));
  const expected = Object.entries(settingsSchema.shape).map(([name, schema]) => {
    const fallback = schema.safeParse(undefined).data;
    return [schema.description, name, fallback === undefined ? '' : String(fallback)];
  });
  t.same(listed, expected);
});
