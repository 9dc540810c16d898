import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import pg from 'pg';
import t, { type Test } from 'tap';
import { type Config, readConfig } from '../../src/config.ts';
import { nodeFlags, roleFlags } from '../../src/processes/node-flags.ts';
import { withStoredSecrets } from '../../src/secrets.ts';
import { type ClickHouseClient, createClickHouse } from '../../src/stores/clickhouse.ts';
import {
  type CoreProcess,
  isAlive,
  settingsOnFreePorts,
  startCore,
  startProgram,
} from '../support/core-process.ts';
import { freePorts } from '../support/free-port.ts';

interface Place {
  settings: Record<string, string>;
  dataDir: string;
  http: string;
  admin: string;
  /** URLs with passwords. Call it after the first start. */
  stores: () => Config['stores'];
}

/** A data directory and ports of its own for a Core with all three embedded servers. */
async function freshPlace(t: Test): Promise<Place> {
  const dataDir = path.join(t.testdir({}), 'data');
  const settings = { ...(await settingsOnFreePorts(dataDir)), CORE_LOG_LEVEL: 'debug' };
  return {
    dataDir,
    http: `http://127.0.0.1:${settings.CORE_PORT}`,
    admin: `http://127.0.0.1:${settings.CORE_ADMIN_PORT}`,
    settings,
    stores: () => withStoredSecrets(readConfig(settings)).stores,
  };
}

const everything = ['postgres', 'redis', 'clickhouse', 'api', 'worker'];

function childPids(core: CoreProcess, names = everything): Promise<number[]> {
  return Promise.all(names.map((name) => core.child(name)));
}

/** Resolves when Core and all its stores answer. */
async function untilServing(place: Place): Promise<void> {
  for (;;) {
    const answer = await fetch(`${place.http}/readyz`).catch(() => undefined);
    await answer?.text();
    if (answer?.status === 200) return;
    await delay(50);
  }
}

async function inPostgres<T extends pg.QueryResultRow>(place: Place, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: place.stores().postgresUrl });
  await client.connect();
  try {
    return (await client.query<T>(sql)).rows;
  } finally {
    await client.end();
  }
}

async function inClickHouse<T>(
  place: Place,
  work: (clickhouse: ClickHouseClient) => Promise<T>,
): Promise<T> {
  const clickhouse = createClickHouse(place.stores().clickhouseUrl);
  try {
    return await work(clickhouse);
  } finally {
    await clickhouse.close();
  }
}

async function inRedis<T>(place: Place, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(place.stores().redisUrl);
  try {
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

t.test('core up starts, stops, and has its data again at the next start', async (t) => {
  const place = await freshPlace(t);
  const first = startCore(t, ['up'], place.settings);
  await first.line(/^core ready/);
  t.match(first.stdout.at(-1), /^core ready/);
  const shown = first.stdout.join('\n');
  t.match(shown, place.http);
  t.match(shown, place.admin);
  t.match(shown, new URL(place.stores().clickhouseUrl).host);
  t.match(shown, new URL(place.stores().redisUrl).host);
  t.match(shown, place.dataDir);
  t.match(shown, `postgres://core:***@127.0.0.1:${place.settings['CORE_POSTGRES_PORT']}/core`);
  t.equal((await fetch(`${place.http}/readyz`)).status, 200);
  t.match(await (await fetch(`${place.admin}/metrics`)).text(), /^core_store_up/m);
  t.equal((await fetch(`${place.http}/metrics`)).status, 404);

  await t.test('a second Core on the same data directory says so', async (t) => {
    const second = startCore(t, ['up'], { ...place.settings, CORE_LOG_LEVEL: 'silent' });
    t.equal((await second.exited).code, 1);
    t.equal(second.stderr.length, 1);
    t.match(second.stderr[0], `Another Core (process ${first.pid})`);
  });

  await inPostgres(place, `INSERT INTO users (name) VALUES ('kept')`);
  await inRedis(place, (redis) => redis.set('kept', 'yes'));
  await inClickHouse(place, (clickhouse) =>
    clickhouse.insert({
      table: 'session_events',
      columns: ['user_id', 'occurred_at', 'protocol', 'event_type'],
      values: [[77, '2026-01-01 00:00:00.000', 'VLESS', 'ONLINE']],
      format: 'JSONCompactEachRow',
    }),
  );
  const pids = await childPids(first);
  first.signal('SIGTERM');
  t.same(await first.exited, { code: 0, signal: null });
  t.same(pids.filter(isAlive), [], 'no process is left');

  const second = startCore(t, ['up', '--json'], { ...place.settings, CORE_API_PROCESSES: '2' });
  const ready = JSON.parse(await second.line(/^\{"core":/));
  t.match(ready, { core: place.http, admin: place.admin, apiProcesses: 2, dataDir: place.dataDir });
  t.equal((await fetch(`${place.http}/readyz`)).status, 200);
  t.same(await inPostgres(place, 'SELECT name FROM users'), [{ name: 'kept' }]);
  t.equal(await inRedis(place, (redis) => redis.get('kept')), 'yes');
  const kept = await inClickHouse(place, async (clickhouse) => {
    const query = 'SELECT user_id FROM session_events';
    return (await clickhouse.query({ query, format: 'JSONCompactEachRow' })).json();
  });
  t.same(kept, [[77]]);
  second.signal('SIGINT');
  t.same(await second.exited, { code: 0, signal: null });
  t.equal(second.stdout.length, 1, 'with --json stdout is one JSON value');
});

t.test('Core restarts every process that dies, and logs it', async (t) => {
  const place = await freshPlace(t);
  const core = startCore(t, ['up'], { ...place.settings, CORE_API_PROCESSES: '2' });
  await core.line(/^core ready/);
  for (const name of ['redis', 'clickhouse', 'postgres', 'api 1', 'worker']) {
    process.kill(await core.child(name), 'SIGKILL');
    await core.line(new RegExp(`"msg":"${name} was killed by SIGKILL; starting it again`));
    await core.line(new RegExp(`"msg":"${name} is back"`));
    await untilServing(place);
    t.pass(`${name} is back`);
  }
  core.signal('SIGTERM');
  t.same(await core.exited, { code: 0, signal: null });
});

t.test('api yields to nobody, the worker to api, and ClickHouse to both', async (t) => {
  const place = await freshPlace(t);
  const core = startCore(t, ['up'], place.settings);
  await core.line(/^core ready/);
  const own = os.getPriority();
  for (const [name, more] of Object.entries({ api: 0, redis: 0, worker: 5, clickhouse: 10 })) {
    t.equal(os.getPriority(await core.child(name)), Math.min(own + more, 19), name);
  }
  const flags = { api: roleFlags.serve, worker: roleFlags.work, clickhouse: nodeFlags };
  for (const [name, expected] of Object.entries(flags)) {
    const argv = readFileSync(`/proc/${await core.child(name)}/cmdline`, 'utf8').split('\0');
    t.strictSame(argv.slice(1, 1 + expected.length), expected, `${name} has Node's flags`);
  }
  core.signal('SIGTERM');
  t.equal((await core.exited).code, 0);
});

t.test('after kill -9 of Core, the next start ends the processes that are left', async (t) => {
  const place = await freshPlace(t);
  const first = startCore(t, ['up'], place.settings);
  await first.line(/^core ready/);
  const pids = await childPids(first);
  await inPostgres(place, `INSERT INTO users (name) VALUES ('kept')`);
  first.signal('SIGKILL');
  t.equal((await first.exited).signal, 'SIGKILL');

  const second = startCore(t, ['up'], place.settings);
  await second.line(/^core ready/);
  t.same(pids.filter(isAlive), [], 'nothing of the first Core runs');
  t.same(await inPostgres(place, 'SELECT name FROM users'), [{ name: 'kept' }]);
  second.signal('SIGTERM');
  t.equal((await second.exited).code, 0);
});

t.test('npm start passes a signal on, and exits with the code of Core', async (t) => {
  const place = await freshPlace(t);
  const npm = startProgram(t, 'npm', ['start'], place.settings);
  await npm.line(/^core ready/);
  const pids = await childPids(npm);
  npm.signal('SIGTERM');
  t.same(await npm.exited, { code: 0, signal: null });
  t.same(pids.filter(isAlive), [], 'no process is left');
});

t.test('a signal during the start stops everything that was started', async (t) => {
  const place = await freshPlace(t);
  const core = startCore(t, ['up'], place.settings);
  const redis = await core.child('redis');
  core.signal('SIGTERM');
  t.same(await core.exited, { code: 0, signal: null });
  t.notOk(isAlive(redis));
  t.notMatch(core.stdout.join('\n'), 'core ready');
});

t.test(
  'a second signal exits at once, and the next start ends the processes that are left',
  async (t) => {
    const place = await freshPlace(t);
    const core = startCore(t, ['up'], place.settings);
    await core.line(/^core ready/);
    // A request with a body that never comes keeps the HTTP process from stopping.
    const socket = net.connect({ host: '127.0.0.1', port: Number(new URL(place.http).port) });
    t.teardown(() => socket.destroy());
    socket.on('error', () => undefined);
    socket.write(
      'POST /node/register HTTP/1.1\r\nHost: core\r\nContent-Type: application/json\r\n',
    );
    socket.write('Content-Length: 10\r\n\r\n{');
    const pids = await childPids(core);
    core.signal('SIGTERM');
    await core.line(/core is stopping/);
    // Two signals within a quarter of a second count as one Ctrl-C.
    await delay(300);
    core.signal('SIGTERM');
    await core.exited;

    const next = startCore(t, ['up'], place.settings);
    await next.line(/^core ready/);
    t.same(pids.filter(isAlive), []);
    next.signal('SIGTERM');
    t.equal((await next.exited).code, 0);
  },
);

t.test('a failure at the start is one line and exit code 1', async (t) => {
  const place = await freshPlace(t);
  const quiet = { ...place.settings, CORE_LOG_LEVEL: 'silent' };
  const stranger = net.createServer().listen(0, '127.0.0.1');
  await once(stranger, 'listening');
  t.teardown(() => stranger.close());
  const taken = String((stranger.address() as net.AddressInfo).port);
  const [unused] = await freePorts(1);

  const cases: [string, Record<string, string>, RegExp][] = [
    ...[
      'CORE_PORT',
      'CORE_ADMIN_PORT',
      'CORE_POSTGRES_PORT',
      'CORE_REDIS_PORT',
      'CORE_CLICKHOUSE_PORT',
    ].map((setting): [string, Record<string, string>, RegExp] => [
      `${setting} is taken`,
      { [setting]: taken },
      new RegExp(`Port ${taken} on 127.0.0.1 is taken.*${setting}`),
    ]),
    [
      'DATABASE_URL is unreachable',
      { DATABASE_URL: `postgres://core:secret@127.0.0.1:${unused}/core` },
      new RegExp(`Postgres cannot be reached at .*127.0.0.1:${unused}.*DATABASE_URL`),
    ],
    [
      'REDIS_URL is unreachable',
      { REDIS_URL: `redis://:secret@127.0.0.1:${unused}` },
      new RegExp(`Redis cannot be reached at .*127.0.0.1:${unused}.*REDIS_URL`),
    ],
    [
      'an address is not of this machine',
      { CORE_ADMIN_HOST: '192.0.2.1' },
      /Cannot listen on 192\.0\.2\.1 .*Check CORE_ADMIN_HOST and CORE_ADMIN_PORT/,
    ],
    ['a setting is wrong', { CORE_PORT: 'eighty' }, /CORE_PORT/],
  ];
  for (const [name, settings, expected] of cases) {
    const core = startCore(t, ['up'], { ...quiet, ...settings });
    t.equal((await core.exited).code, 1, name);
    t.equal(core.stderr.length, 1, `${name}: one line`);
    t.match(core.stderr[0], expected);
    t.notMatch(core.stderr[0], 'secret');
    t.same(core.stdout, []);
    t.notOk(serverPids(place).some(isAlive), `${name}: nothing is left running`);
  }
});

t.test(
  'an unexpected error is printed with its original message, also if a role fails with it',
  async (t) => {
    const place = await freshPlace(t);
    const server = new Redis(process.env['CORE_TEST_REDIS_URL'] ?? '');
    const user = `limited${process.pid}`;
    t.teardown(async () => {
      await server.acl('DELUSER', user);
      server.disconnect();
    });
    await server.acl('SETUSER', user, 'on', '>secret', '~*', '&*', '+@all', '-config');
    const limited = new URL(process.env['CORE_TEST_REDIS_URL'] ?? '');
    limited.username = user;
    limited.password = 'secret';
    const settings = { ...place.settings, REDIS_URL: limited.href, CORE_LOG_LEVEL: 'error' };
    const core = startCore(t, ['up'], settings);
    t.equal((await core.exited).code, 1);
    t.match(core.stderr.at(-1), /^core: NOPERM .*'config/);
    const logged = core.stderr
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line));
    t.match(
      logged.find((line) => line.pid !== core.pid),
      { msg: 'core could not start', err: { message: /NOPERM/, command: { name: 'config' } } },
      'the role logs the failure itself',
    );
  },
);

/** Process ids of all servers that were started here, from their pid files. */
function serverPids(place: Place): number[] {
  return ['postgres', 'redis', 'clickhouse'].flatMap((name) => {
    try {
      return [Number(readFileSync(path.join(place.dataDir, `${name}.pid`), 'utf8'))];
    } catch {
      return [];
    }
  });
}
