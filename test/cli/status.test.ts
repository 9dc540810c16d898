import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { findOrInstall } from '../../src/embedded/find-program.ts';
import { createLogger } from '../../src/log.ts';
import { until } from '../support/api.ts';
import { commandLine } from '../support/cli.ts';
import { startCore } from '../support/core-process.ts';
import { freePorts } from '../support/free-port.ts';
import { openDatabases } from '../support/stores.ts';

interface Shown {
  exitCode: number;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: matched by t.match.
  value: any;
}

/** Migrated stores, and what `core status` says about them, as text and as JSON. */
async function start(t: Test) {
  const stores = await openDatabases(t);
  await stores.migrate();
  const cli = async (settings: Record<string, string>, args: string[]) => {
    const { core } = commandLine({ ...stores.environment, ...settings });
    const { exitCode, stdout, stderr } = await core(...args);
    return { exitCode, text: stdout + stderr };
  };
  const status = async (settings: Record<string, string> = {}, need?: string): Promise<Shown> => {
    const more = need === undefined ? [] : ['--need', need];
    const json = await cli(settings, ['status', '--json', ...more]);
    const shown = await cli(settings, ['status', ...more]);
    return { exitCode: json.exitCode, text: shown.text, value: JSON.parse(json.text) };
  };
  return { ...stores, status };
}

/** Starts a role of Core as another process, and waits until status says that it runs. */
async function startRole(
  t: Test,
  core: Awaited<ReturnType<typeof start>>,
  role: 'api' | 'worker',
  settings: Record<string, string> = {},
) {
  const command = role === 'api' ? 'serve' : 'work';
  const running = startCore(t, [command], { ...core.environment, ...settings });
  await until(
    () => core.status(settings),
    ({ value }) =>
      (value.running[role] ?? []).some(({ pid }: { pid: number }) => pid === running.pid),
    60_000,
  );
  return running;
}

const answering = { up: true, since: null, reason: null };
const isoTime = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/;

t.test('core status says what runs, and exits with 3 while a part does not run', async (t) => {
  const core = await start(t);
  const none = await core.status();
  t.equal(none.exitCode, 3);
  t.match(none.value.running, {
    api: [],
    worker: [],
    postgres: answering,
    redis: answering,
    clickhouse: answering,
  });
  t.match(none.text, /^not running +api \(never seen\); worker \(never seen\)$/m);
  t.equal((await core.status({}, 'postgres,redis')).exitCode, 0);
  t.match((await core.status({}, 'moon')).value.error, {
    code: 'INVALID_ARGUMENT',
    message: /There is no part moon: give some of api, worker, postgres, redis, clickhouse/,
  });

  const api = await startRole(t, core, 'api');
  const worker = await startRole(t, core, 'worker');
  const both = await core.status();
  t.equal(both.exitCode, 0, both.text);
  t.match(both.value.running, {
    api: [{ pid: api.pid, state: 'running', since: isoTime }],
    worker: [{ pid: worker.pid, state: 'running', since: isoTime }],
  });
  t.match(both.text, /^not running +nothing$/m);
  t.match(both.text, new RegExp(`^api .* ${api.pid}  running`, 'm'));

  worker.signal('SIGTERM');
  await worker.exited;
  const stopped = await core.status();
  t.equal(stopped.exitCode, 3);
  t.match(stopped.value.running.worker, [{ pid: worker.pid, state: 'stopped', since: isoTime }]);
  t.match(stopped.text, /^not running +worker since \d{4}-/m);
  t.equal((await core.status({}, 'api')).exitCode, 0);

  api.signal('SIGKILL');
  await api.exited;
  // A process counts as running until nobody has seen it for 15 seconds.
  await core.pool.query(`UPDATE processes SET seen_at = seen_at - interval '1 minute'`);
  const lost = await core.status();
  t.match(lost.value.running.api, [{ pid: api.pid, state: 'lost', since: isoTime }]);
  t.match(lost.text, /^not running +api since \d{4}-.*; worker since/m);

  const again = await startRole(t, core, 'api');
  t.same(
    (await core.status()).value.running.api.map(({ pid }: { pid: number }) => pid),
    [again.pid],
    'a process that was started again on its host does not count as lost',
  );
});

/** A durable Redis of the test's own, so that the test may end it. */
async function startOwnRedis(t: Test): Promise<{ url: string; child: ChildProcess }> {
  const found = await findOrInstall(
    'redis-server',
    createLogger('warn'),
    new AbortController().signal,
  );
  if (!('path' in found)) throw new Error(`redis-server is needed: ${found.remedy}`);
  const [port] = await freePorts(1);
  const durable = ['--appendonly', 'yes', '--appendfsync', 'always'];
  const where = ['--port', String(port), '--bind', '127.0.0.1', '--dir', t.testdir({})];
  const child = spawn(found.path, [...where, ...durable], { stdio: 'ignore' });
  t.teardown(() => void child.kill('SIGKILL'));
  return { url: `redis://127.0.0.1:${port}`, child };
}

t.test('core status says which store is away and since when, and shows the rest', async (t) => {
  const core = await start(t);
  const redis = await startOwnRedis(t);
  const settings = { REDIS_URL: redis.url };
  await until(
    () => core.status(settings),
    ({ value }) => value.running.redis.up === true,
  );
  const api = await startRole(t, core, 'api', settings);
  const [unused] = await freePorts(1);
  const elsewhere = `127.0.0.1:${unused}`;

  const noPostgres = await core.status({
    ...settings,
    DATABASE_URL: `postgres://core:secret@${elsewhere}/core`,
  });
  t.equal(noPostgres.exitCode, 3);
  t.match(noPostgres.value, {
    running: {
      api: [{ pid: api.pid, state: 'running' }],
      postgres: { up: false, since: null, reason: new RegExp(`Postgres at ${elsewhere} cannot`) },
      redis: answering,
    },
    nodes: null,
    backlog: null,
    lagSeconds: null,
    unpublished: null,
    segments: null,
  });
  t.notMatch(JSON.stringify(noPostgres), 'secret');

  const noClickHouse = await core.status({ ...settings, CLICKHOUSE_URL: `http://${elsewhere}/x` });
  t.equal(noClickHouse.exitCode, 3);
  t.match(noClickHouse.value, {
    running: { postgres: answering, redis: answering, clickhouse: { up: false } },
    nodes: { total: 0 },
    backlog: { bytes: 0 },
  });

  redis.child.kill('SIGTERM');
  await once(redis.child, 'exit');
  const away = await until(
    () => core.status(settings),
    ({ value }) => value.running.redis.since !== null,
  );
  t.equal(away.exitCode, 3);
  t.match(away.value, {
    running: {
      api: [{ state: 'running' }],
      redis: { up: false, since: isoTime, reason: /^Redis at / },
    },
    nodes: { total: 0 },
    segments: { count: 0 },
    backlog: null,
  });
  t.match(away.text, /^not running .*redis since \d{4}-.* \(Redis at .* cannot be used/m);

  const neither = await core.status({
    ...settings,
    DATABASE_URL: `postgres://core:secret@${elsewhere}/core`,
  });
  t.match(neither.value.running, { api: null, worker: null, clickhouse: answering });
  t.match(neither.text, /api \(unknown: Postgres and Redis are away\)/);
});
