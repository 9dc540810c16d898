import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { startApi } from '../../src/app/api.ts';
import { startWorker } from '../../src/app/worker.ts';
import { instanceKey } from '../../src/stores/instance.ts';
import { createRedis } from '../../src/stores/redis.ts';
import { commandLine } from '../support/cli.ts';
import { settingsOnFreePorts, startCore } from '../support/core-process.ts';
import { openDatabases } from '../support/stores.ts';

async function cli(settings: Record<string, string>, ...args: string[]) {
  const { exitCode, stdout, stderr } = await commandLine(settings).core(...args, '--json');
  return { exitCode, value: JSON.parse(stdout + stderr) };
}

t.test('Core refuses a Postgres and a Redis of different Cores', async (t) => {
  const [first, second] = [await openDatabases(t), await openDatabases(t)];
  await Promise.all([first.migrate(), second.migrate()]);
  const redis = createRedis(first.redisUrl);
  await redis.connect();
  t.teardown(() => redis.disconnect());
  const api = await startApi(first.config, first.log);
  await api.close();
  const { rows } = await first.pool.query<{ id: string }>('SELECT id FROM instance');
  const own = rows[0]?.id ?? '';
  t.equal(await redis.get(instanceKey(first.redisPrefix)), own, 'an empty Redis takes the id');

  // Another database, such as a new one, with the Redis of the first.
  const mixed = {
    ...second.config,
    stores: { ...second.config.stores, redisPrefix: first.redisPrefix },
  };
  const expected = { code: 'INSTANCE_MISMATCH', message: new RegExp(`${own}.*REDIS_URL`) };
  await t.rejects(startApi(mixed, first.log), expected);
  await t.rejects(startWorker(mixed, first.log), expected);
  t.equal(await redis.get(instanceKey(first.redisPrefix)), own, 'the id stays');
  const { rows: streams } = await second.pool.query('SELECT * FROM streams');
  t.same(streams, [], 'nothing was written');

  // The remedy of docs/durability.md.
  await redis.del(instanceKey(first.redisPrefix));
  const adopted = await startApi(mixed, first.log);
  await adopted.close();
});

t.test('a command refuses the Core of another data directory', async (t) => {
  const folder = t.testdir({ empty: {}, copied: {} });
  const dataDir = path.join(folder, 'data');
  const settings = await settingsOnFreePorts(dataDir);
  const core = startCore(t, ['up'], settings);
  await core.line(/^core ready/);
  const id = readFileSync(path.join(dataDir, 'instance'), 'utf8').trim();
  t.same(await cli(settings, 'user', 'list'), { exitCode: 0, value: [] });
  t.match(await cli(settings, 'status'), {
    exitCode: 0,
    value: { running: { api: [{ state: 'running' }], worker: [{ state: 'running' }] } },
  });

  // Without a password, as in a folder on which no Core was ever started.
  const inEmpty = { ...settings, CORE_DATA_DIR: path.join(folder, 'empty') };
  t.match(await cli(inEmpty, 'user', 'create', '--name', 'nobody'), {
    exitCode: 1,
    value: {
      error: {
        code: 'INSTANCE_MISMATCH',
        message: /Postgres at .* does not take the password of .*empty.*CORE_DATA_DIR/,
      },
    },
  });

  // With the right password but another database, as after a copy of the folder.
  const copied = path.join(folder, 'copied');
  mkdirSync(copied, { recursive: true });
  copyFileSync(path.join(dataDir, 'secrets.json'), path.join(copied, 'secrets.json'));
  const other = '00000000-0000-4000-8000-000000000000';
  writeFileSync(path.join(copied, 'instance'), `${other}\n`);
  t.match(await cli({ ...settings, CORE_DATA_DIR: copied }, 'user', 'create', '--name', 'nobody'), {
    exitCode: 1,
    value: {
      error: {
        code: 'INSTANCE_MISMATCH',
        message: new RegExp(
          `Core ${id}, and the data directory .*copied belongs to the Core ${other}`,
        ),
      },
    },
  });
  t.same(await cli(settings, 'user', 'list'), { exitCode: 0, value: [] }, 'nothing was changed');
});
