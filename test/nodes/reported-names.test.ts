import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { createHeartbeats } from '../../src/nodes/heartbeat.ts';
import { post, startTestApi } from '../support/api.ts';
import { commandLine } from '../support/cli.ts';

const api = await startTestApi(t);
const { postgresUrl, redisUrl, clickhouseUrl, redisPrefix } = api.config.stores;
const { core, json } = commandLine({
  DATABASE_URL: postgresUrl,
  REDIS_URL: redisUrl,
  CLICKHOUSE_URL: clickhouseUrl,
  CORE_REDIS_PREFIX: redisPrefix,
  CORE_LOG_LEVEL: 'silent',
});
const folder = t.testdir({});

t.beforeEach(() => api.pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE'));

async function register(code: string, said: Record<string, string>): Promise<void> {
  const dto = { name: 'localhost', host: 'localhost', ip: '198.51.100.7', region: 'vm' };
  const reply = await post(api, '/node/register', { code, ...dto, ...said });
  if (reply.status !== 200) throw new Error(reply.text);
}

async function fleetOf(node: string): Promise<{ file: string; code: string }> {
  const file = path.join(folder, 'fleet.yaml');
  writeFileSync(file, `version: 1\nnodes:\n  - ${node}\n`);
  const applied = await json<{ created: { code: string }[] }>('apply', file);
  return { file, code: applied.created[0]?.code ?? '' };
}

t.test('a node keeps the name in the fleet file, even if it calls itself localhost', async (t) => {
  const { file, code } = await fleetOf('{ name: fra-1, region: eu, host: fra-1.example.net }');
  await register(code, {});
  t.match(await json('apply', file, '--prune'), { plan: [], remove: 0, created: [] });
  t.match(await json('node', 'list'), [
    {
      nodeId: 1,
      status: 'online',
      name: 'fra-1',
      host: 'fra-1.example.net',
      region: 'eu',
      ip: '198.51.100.7',
      reportedName: 'localhost',
      reportedHost: 'localhost',
      reportedRegion: 'vm',
    },
  ]);
  const exported = path.join(folder, 'exported.yaml');
  await json('export', exported);
  t.notMatch(
    readFileSync(exported, 'utf8'),
    /localhost|vm/,
    'an export contains only what operators set',
  );
  t.match(await json('apply', exported, '--prune'), { plan: [] });
});

t.test(
  'share links use the host of the operator, else the reported one, else the address',
  async (t) => {
    const { code } = await json<{ code: string }>('node', 'create', '--name', 'fra-1');
    await json('protocol', 'add', '--node', '1', '--protocol', 'TROJAN', '--port', '443');
    await json('user', 'create', '--name', 'alice');
    const { links } = await json<{ links: { uuid: string }[] }>(
      'subscription',
      'create',
      '--user',
      '1',
    );
    const uriOf = async () =>
      (await json<{ uri: string }>('link', 'show', links[0]?.uuid ?? '')).uri;
    await register(code, { host: '' });
    t.match(await uriOf(), '@198.51.100.7:443');
    const again = await json<{ code: string }>('node', 'rekey', '1', '--yes');
    await register(again.code, { host: 'n.example.net' });
    t.match(await uriOf(), '@n.example.net:443');
    await json('node', 'set', '1', '--host', 'fra-1.example.net', '--region', 'eu');
    t.match(await uriOf(), '@fra-1.example.net:443');
    t.match(await uriOf(), '#fra-1%20trojan-443');
    await json('node', 'set', '1', '--host', '', '--region', '');
    t.match(
      await uriOf(),
      '@n.example.net:443',
      'without a host of the operator, the reported one counts again',
    );
    t.match(await json('node', 'show', '1'), { host: 'n.example.net', region: 'vm' });
  },
);

t.test('a new address is no change if the node has reported its host', async (t) => {
  const { code } = await json<{ code: string }>('node', 'create', '--name', 'fra-1');
  const causes = async (ip: string) => {
    const log = api.log;
    const heartbeats = createHeartbeats({
      pool: api.pool,
      log,
      intervalMs: 60_000,
      nowMs: Date.now,
    });
    heartbeats.seen(1, ip, undefined);
    await heartbeats.close();
    const { rows } = await api.pool.query('SELECT change_causes, ip FROM nodes');
    return rows[0];
  };
  t.same(await causes('192.0.2.1'), { change_causes: ['address'], ip: '192.0.2.1' });
  await api.pool.query(`UPDATE nodes SET change_causes = '{}', published_seq = change_seq`);
  await register(code, { host: 'n.example.net' });
  t.same(await causes('192.0.2.2'), { change_causes: ['registration'], ip: '192.0.2.2' });
});

t.test('the commands show what a node reported if it differs', async (t) => {
  const { code } = await json<{ code: string }>('node', 'create', '--name', 'fra-1');
  t.notMatch((await core('node', 'list')).stdout, /reported/);
  await register(code, { name: 'fra-1', region: '' });
  t.match((await core('node', 'show', '1')).stdout, /^host +localhost$/m);
  t.notMatch((await core('node', 'show', '1')).stdout, /reported(Name|Host|Region)/);
  await json('node', 'set', '1', '--name', 'ams-1', '--host', 'ams-1.example.net');
  const { stdout } = await core('node', 'show', '1');
  t.match(stdout, /^name +ams-1$/m);
  t.match(stdout, /^reportedName +fra-1$/m);
  t.match(stdout, /^reportedHost +localhost$/m);
  t.notMatch(stdout, /reportedRegion/);
  const list = (await core('node', 'list')).stdout.split('\n');
  t.match(list[0], /lastSeenAt +reportedName {2}reportedHost$/);
  t.match(list[1], / fra-1 +localhost$/);
});
