import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { Redis } from 'ioredis';
import t, { type Test } from 'tap';
import { readConfig } from '../../src/config.ts';
import { projectRoot } from '../../src/root.ts';
import { withStoredSecrets } from '../../src/secrets.ts';
import { until } from '../support/api.ts';
import { isAlive, settingsOnFreePorts, startCore, startProgram } from '../support/core-process.ts';

const core = `exec ${process.execPath} ${path.join(projectRoot, 'scripts', 'core.mjs')} up`;
const everything = ['postgres', 'redis', 'clickhouse', 'api', 'worker'];

async function freshPlace(t: Test) {
  const dataDir = path.join(t.testdir({}), 'data');
  const settings = { ...(await settingsOnFreePorts(dataDir)), CORE_LOG_LEVEL: 'debug' };
  return { dataDir, settings, lockFile: path.join(dataDir, 'core.lock') };
}

async function inRedis<T>(settings: NodeJS.ProcessEnv, work: (redis: Redis) => Promise<T>) {
  const redis = new Redis(withStoredSecrets(readConfig(settings)).stores.redisUrl);
  try {
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

t.test('closing the terminal stops Core cleanly', async (t) => {
  const { dataDir, settings, lockFile } = await freshPlace(t);
  // After the terminal is closed, everything that Core writes fails with EIO.
  const terminal = startProgram(t, 'script', ['--quiet', '--command', core, '/dev/null'], settings);
  await terminal.line(/^core ready/);
  await inRedis(settings, (redis) => redis.set('kept', 'yes'));
  const pids = await Promise.all(everything.map((name) => terminal.child(name)));
  const pid = Number(readFileSync(lockFile, 'utf8').split(' ')[0]);
  terminal.signal('SIGKILL');
  await until(
    async () => isAlive(pid),
    (alive) => !alive,
  );
  t.notOk(existsSync(lockFile), 'the last step was to release the data directory');
  t.same(pids.filter(isAlive), [], 'no process is left');
  const redisLog = readFileSync(path.join(dataDir, 'logs', 'redis.log'), 'utf8');
  t.match(redisLog, 'Redis is now ready to exit, bye bye');

  const second = startCore(t, ['up'], settings);
  await second.line(/^core ready/);
  t.equal(await inRedis(settings, (redis) => redis.get('kept')), 'yes');
  t.notMatch(second.stderr.join('\n'), 'of a former Core still runs');
  const postgresLog = readFileSync(path.join(dataDir, 'logs', 'postgres.log'), 'utf8');
  t.notMatch(postgresLog, 'was not properly shut down');

  // Shell and kernel may each send a SIGHUP.
  second.signal('SIGHUP');
  second.signal('SIGHUP');
  t.same(await second.exited, { code: 0, signal: null });
});

t.test('under nohup Core keeps running when the terminal is closed', async (t) => {
  const { dataDir, settings, lockFile } = await freshPlace(t);
  const output = path.join(path.dirname(dataDir), 'nohup.out');
  const command = `exec nohup ${core.slice('exec '.length)} > ${output} 2>&1`;
  const terminal = startProgram(t, 'script', ['-q', '-c', command, '/dev/null'], settings);
  const printed = async (): Promise<string> =>
    existsSync(output) ? readFileSync(output, 'utf8') : '';
  await until(printed, (text) => /^core ready/m.test(text), 60_000);
  const pid = Number(readFileSync(lockFile, 'utf8').split(' ')[0]);
  terminal.signal('SIGKILL');
  await terminal.exited;
  process.kill(pid, 'SIGHUP');
  const answer = await fetch(`http://127.0.0.1:${settings.CORE_PORT}/readyz`);
  t.equal(answer.status, 200);
  process.kill(pid, 'SIGTERM');
  await until(
    async () => isAlive(pid),
    (alive) => !alive,
  );
  t.match(await printed(), '"signal":"SIGTERM"', 'SIGTERM has stopped it, not SIGHUP');
  t.notOk(existsSync(lockFile));
});
