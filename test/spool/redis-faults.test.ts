import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { startApi } from '../../src/app/api.ts';
import { startRedis } from '../../src/embedded/redis/start.ts';
import { createLogger, type Logger } from '../../src/log.ts';
import { makeSecrets } from '../../src/secrets.ts';
import {
  get,
  post,
  registerTestNode,
  startTestApi,
  type TestApi,
  until,
  usageEntry,
  wideEntries,
} from '../support/api.ts';
import { freePorts } from '../support/free-port.ts';

/** A Redis for one test, which may starve, kill and damage it, and an api that uses it. */
async function startOnOwnRedis(t: Test, options: { log?: Logger; dataDir?: string } = {}) {
  const { log = createLogger('silent'), dataDir = t.testdir({}) } = options;
  const [port = 0] = await freePorts(1);
  const { redis: password } = makeSecrets(dataDir);
  const server = await startRedis({ dataDir, port, password }, log, new AbortController().signal);
  const url = `redis://:${password}@127.0.0.1:${port}`;
  const admin = new Redis(url, { maxRetriesPerRequest: null });
  admin.on('error', () => undefined);
  const api = await startTestApi(t, { REDIS_URL: url, CORE_SPOOL_SHARDS: '1' });
  // tap runs this teardown first, because it is registered last: the api must close before its Redis.
  t.teardown(async () => {
    admin.disconnect();
    await api.close();
    await server.stop();
  });
  const node = await registerTestNode(api);
  const rows = async (): Promise<number> => {
    const stream = `${api.config.stores.redisPrefix}:{s0}:usage`;
    const entries = await admin.xrange(stream, '-', '+');
    return entries.reduce((sum, [, fields]) => sum + Number(fields[1]), 0);
  };
  const usage = (userId: number) =>
    post(api, '/node/usage', { entries: [usageEntry({ userId })] }, { node });
  return { api, admin, server, node, rows, usage, dataDir };
}

t.test('a Redis without memory refuses posts, keeps its rows, and takes posts again', async (t) => {
  const { admin, usage, rows } = await startOnOwnRedis(t);
  t.equal((await usage(1)).status, 200);
  await admin.config('SET', 'maxmemory', '1');
  const refused = await usage(2);
  t.equal(refused.status, 503);
  t.equal(refused.json.error?.code, 'STORE_UNAVAILABLE');
  t.ok(refused.headers['retry-after']);
  t.equal((await usage(1)).status, 200, 'a repeated post writes nothing, so Redis takes it');
  t.equal(await rows(), 1);
  await admin.config('SET', 'maxmemory', '0');
  t.equal((await usage(2)).status, 200);
  t.equal(await rows(), 2);
});

/**
 * Puts the append-only file on a file system of 24 MB. If this process may not mount one (in most
 * containers), it limits the size of files instead, which Redis inherits.
 */
function giveSmallDisk(t: Test) {
  // Not a testdir: tap would remove that before the teardown unmounts it.
  const dataDir = mkdtempSync(path.join(os.tmpdir(), 'core-disk-'));
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }));
  const folder = path.join(dataDir, 'redis');
  mkdirSync(folder);
  const filler = path.join(folder, 'filler');
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'core-test', folder]);
  if (mounted.status === 0) {
    t.teardown(() => spawnSync('umount', ['--lazy', folder]));
    return {
      dataDir,
      fill(leftBytes: number) {
        const { bavail, bsize } = statfsSync(folder);
        writeFileSync(filler, Buffer.alloc(bavail * bsize - leftBytes));
      },
      empty: () => rmSync(filler),
    };
  }
  t.comment('no right to mount: a limit on the size of files instead of a full disk');
  const limit = (redisPid: number | undefined, bytes: number | 'unlimited') => {
    for (const pid of [process.pid, redisPid]) {
      if (pid !== undefined) spawnSync('prlimit', [`--pid=${pid}`, `--fsize=${bytes}:unlimited`]);
    }
  };
  t.teardown(() => limit(undefined, 'unlimited'));
  return {
    dataDir,
    fill(leftBytes: number, redisPid: number | undefined) {
      limit(redisPid, statSync(appendOnlyFile(dataDir)).size + leftBytes);
    },
    empty: (redisPid: number | undefined) => limit(redisPid, 'unlimited'),
  };
}

t.test(
  'a full disk under the append-only file: posts are refused, metrics say it, and posts are taken again',
  async (t) => {
    const lines: string[] = [];
    const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) });
    const disk = giveSmallDisk(t);
    const { dataDir } = disk;
    const { api, server, node, usage, rows } = await startOnOwnRedis(t, { log, dataDir });
    for (let userId = 1; userId <= 3; userId += 1) t.equal((await usage(userId)).status, 200);
    t.match((await get(api.admin, '/metrics')).text, /^core_store_up\{store="redis"\} 1$/m);

    disk.fill(100_000, server.pid());
    const entries = wideEntries(9_000, 4);
    const large = () => post(api, '/node/usage', { entries }, { node });
    const refused = await large();
    t.equal(refused.status, 503);
    t.equal(refused.json.error?.code, 'STORE_UNAVAILABLE');
    t.ok(refused.headers['retry-after']);
    const others: number[] = [refused.status];
    const metrics = await until(
      async () => {
        const [reply, shown] = await Promise.all([large(), get(api.admin, '/metrics')]);
        others.push(reply.status);
        return shown;
      },
      ({ text }) => /^core_store_up\{store="redis"\} 0$/m.test(text),
    );
    t.match(
      metrics.text,
      /^core_nodes\{status="online"\} \d+$/m,
      'the metrics still show what Postgres knows',
    );
    t.notMatch(metrics.text, /^core_backlog_bytes/m);
    t.ok(
      others.every((status) => status === 503),
      'every post is refused while the disk is full',
    );
    t.match(
      lines.join(''),
      /redis (exited with code 1: [^"]*AOF write error|was killed by SIGXFSZ)[^"]*starting it again/,
    );

    disk.empty(server.pid());
    await until(large, ({ status }) => status === 200);
    t.equal(
      await until(rows, (count) => count > 3),
      9_003,
      'the large post is stored once, and no refused one',
    );
  },
);

t.test(
  'Redis killed under load: a post with a 200 is stored once, any other one at most once',
  async (t) => {
    const { admin, server, usage, rows } = await startOnOwnRedis(t);
    const acked = new Set<number>();
    let next = 0;
    let stopped = false;
    const refusals: number[] = [];
    const sender = async (): Promise<void> => {
      while (!stopped) {
        next += 1;
        const userId = next;
        for (;;) {
          const reply = await usage(userId);
          if (reply.status === 200) {
            acked.add(userId);
            break;
          }
          refusals.push(reply.status);
          await delay(20);
        }
      }
    };
    const senders = Array.from({ length: 16 }, sender);
    for (let kill = 0; kill < 3; kill += 1) {
      const before = acked.size;
      await until(
        async () => acked.size,
        (size) => size > before + 200,
      );
      const pid = server.pid();
      t.ok(pid);
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
    }
    const before = acked.size;
    await until(
      async () => acked.size,
      (size) => size > before + 200,
    );
    stopped = true;
    await Promise.all(senders);
    t.ok(
      refusals.every((status) => status === 503),
      'every refusal is a 503',
    );
    await until(
      () => admin.ping(),
      (pong) => pong === 'PONG',
    );
    t.equal(await rows(), acked.size);
  },
);

t.test('an api does not start on a Redis that could lose acknowledged posts', async (t) => {
  const { api, admin } = await startOnOwnRedis(t);
  await admin.config('SET', 'appendfsync', 'everysec');
  await admin.config('SET', 'maxmemory-policy', 'allkeys-lru');
  await t.rejects(startApi(api.config, api.log), {
    code: 'REDIS_NOT_DURABLE',
    message: /appendfsync is everysec, must be always; maxmemory-policy is allkeys-lru/,
  });
});

t.test('an append-only file without its end loses what was there, and nothing else', async (t) => {
  const { api, admin, server, usage, rows, dataDir } = await startOnOwnRedis(t);
  for (let userId = 1; userId <= 3; userId += 1) t.equal((await usage(userId)).status, 200);
  t.equal(await rows(), 3);
  const pid = server.pid();
  t.ok(pid);
  const file = appendOnlyFile(dataDir);
  const gone = once(admin, 'close');
  if (pid !== undefined) process.kill(pid, 'SIGKILL');
  await gone;
  truncateSync(file, statSync(file).size - 5);
  await until(
    () => admin.ping(),
    (pong) => pong === 'PONG',
  );
  t.equal(await rows(), 2, 'the last append is gone as a whole, the key and the rows');
  await untilAnswering(api);
  t.equal((await usage(3)).status, 200);
  t.equal(await rows(), 3, 'a node that still holds the body can send it again');
});

function appendOnlyFile(dataDir: string): string {
  const folder = path.join(dataDir, 'redis', 'appendonlydir');
  const name = readdirSync(folder).find((one) => one.endsWith('.incr.aof'));
  if (name === undefined) throw new Error('no append-only file');
  return path.join(folder, name);
}

async function untilAnswering(api: TestApi): Promise<void> {
  await until(
    () => api.redis.ping().catch(() => 'away'),
    (pong) => pong === 'PONG',
  );
}
