import { gunzipSync } from 'node:zlib';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import t, { type Test } from 'tap';
import { createLogger } from '../../src/log.ts';
import { bumpNodes } from '../../src/nodes/bump.ts';
import { createConfigCache } from '../../src/publish/config-cache.ts';
import { createConfigMemory } from '../../src/publish/config-memory.ts';
import { configKey, type KeptConfig } from '../../src/publish/config-store.ts';
import { readNodeRows } from '../../src/publish/read-rows.ts';
import { linkUuid } from '../../src/render/link-uuid.ts';
import { renderNodeConfig } from '../../src/render/render.ts';
import { migratePostgres } from '../../src/stores/migrate.ts';
import { createPool, inTransaction } from '../../src/stores/postgres.ts';
import { createRedis } from '../../src/stores/redis.ts';
import { until } from '../support/api.ts';
import { freePorts } from '../support/free-port.ts';
import { publishNow } from '../support/publish.ts';
import { freshStores } from '../support/stores.ts';

const stores = await freshStores(t);
const pool = openPool(t);
const redis = await openRedis(t);
await migratePostgres(pool, createLogger('silent'));

function openPool(t: Test, url = stores.databaseUrl): pg.Pool {
  const opened = createPool(url, { connectTimeoutMs: 2_000 });
  t.teardown(() => opened.end());
  return opened;
}

async function openRedis(t: Test): Promise<Redis> {
  const opened = createRedis(stores.redisUrl);
  t.teardown(() => opened.disconnect());
  await opened.connect();
  return opened;
}

/** A Redis and a Postgres that nobody listens on. */
async function away(t: Test): Promise<{ pool: pg.Pool; redis: Redis }> {
  const [redisPort, postgresPort] = await freePorts(2);
  const redis = createRedis(`redis://127.0.0.1:${redisPort}`);
  t.teardown(() => redis.disconnect());
  await t.rejects(redis.connect());
  return { redis, pool: openPool(t, `postgres://core:core@127.0.0.1:${postgresPort}/core`) };
}

async function insertedId(sql: string, values: unknown[]): Promise<number> {
  const result = await pool.query<{ id: number }>(`${sql} RETURNING id`, values);
  const id = result.rows[0]?.id;
  if (id === undefined) throw new Error('nothing inserted');
  return id;
}

const newNode = () =>
  insertedId('INSERT INTO nodes (name, host) VALUES ($1, $2)', ['n', 'node.example']);
/** Each protocol has a group of its own. */
async function newProtocol(nodeId: number, protocol: string, port: number): Promise<number> {
  const id = await insertedId(
    'INSERT INTO node_protocols (node_id, protocol, port) VALUES ($1, $2, $3)',
    [nodeId, protocol, port],
  );
  const group = await insertedId('INSERT INTO groups (name) VALUES ($1)', [`protocol ${id}`]);
  await pool.query('INSERT INTO protocol_groups (group_id, node_protocol_id) VALUES ($1, $2)', [
    group,
    id,
  ]);
  return id;
}
const newUser = () => insertedId('INSERT INTO users (name) VALUES ($1)', ['u']);

async function newLink(options: {
  userId: number;
  protocolId: number;
  status?: string;
  expiresAt?: string;
}): Promise<{ uuid: string; subscriptionId: number }> {
  const subscriptionId = await insertedId(
    'INSERT INTO subscriptions (user_id, status, expires_at) VALUES ($1, $2, $3)',
    [options.userId, options.status ?? 'active', options.expiresAt ?? null],
  );
  await pool.query(
    `INSERT INTO subscription_groups (group_id, subscription_id)
     SELECT group_id, $1 FROM protocol_groups WHERE node_protocol_id = $2`,
    [subscriptionId, options.protocolId],
  );
  return { uuid: linkUuid(subscriptionId, options.protocolId), subscriptionId };
}

/** What a process knows about the node. */
async function wanted(nodeId: number) {
  const { rows } = await pool.query<{ revision: number; contentHash: string | null }>(
    `SELECT revision, encode(content_hash, 'hex') AS "contentHash" FROM nodes WHERE id = $1`,
    [nodeId],
  );
  return { nodeId, revision: rows[0]?.revision ?? 1, contentHash: rows[0]?.contentHash ?? null };
}
const mark = (nodeId: number) =>
  inTransaction(pool, (client) => bumpNodes(client, [nodeId], 'test'));

function newCache(given: { pool?: pg.Pool; redis?: Redis; prefix?: string } = {}) {
  return createConfigCache({ pool, redis, prefix: stores.redisPrefix, ...given });
}

function contentOf(config: KeptConfig | undefined) {
  if (config === undefined) throw new Error('no config');
  const content = JSON.parse(gunzipSync(config.gzip).toString());
  if (content.revision !== config.revision) throw new Error('revision differs from its content');
  return content;
}

t.test('reads what the node should run and nothing else', async (t) => {
  const [nodeId, otherId, userId] = [await newNode(), await newNode(), await newUser()];
  const vless = await newProtocol(nodeId, 'VLESS', 443);
  const mtproto = await newProtocol(nodeId, 'MTPROTO', 444);
  const elsewhere = await newProtocol(otherId, 'VLESS', 443);
  const kept = [
    await newLink({ userId, protocolId: vless }),
    await newLink({ userId, protocolId: vless, expiresAt: '2999-01-01T00:00:00Z' }),
  ];
  const telegram = await newLink({ userId, protocolId: mtproto });
  await newLink({ userId, protocolId: elsewhere });
  for (const status of ['limited', 'expired', 'disabled']) {
    await newLink({ userId, protocolId: vless, status });
  }
  await newLink({ userId, protocolId: vless, expiresAt: '2020-01-01T00:00:00Z' });
  await pool.query(
    `INSERT INTO node_outbounds (node_id, tag, protocol, settings, configured, position) VALUES
     ($1, 'b', 'freedom', '{"domainStrategy":"UseIP"}', true, 1),
     ($1, 'a', 'blackhole', '{}', true, 1),
     ($1, 'z', 'freedom', '{}', true, 0),
     ($1, 'reported', NULL, '{}', false, 0)`,
    [nodeId],
  );
  await pool.query(
    `INSERT INTO routing_rules (node_id, position, rule) VALUES
     ($1, 2, '{"outboundTag":"a","ip":["geoip:private"]}'), ($1, 1, '{"outboundTag":"b","port":25}')`,
    [nodeId],
  );
  const client = await pool.connect();
  const rows = await readNodeRows(client, nodeId);
  const idle = await client.query('SELECT pg_current_xact_id_if_assigned() IS NULL AS ended');
  client.release();
  t.same(idle.rows, [{ ended: true }]);
  if (rows === undefined) throw new Error('no rows');
  const config = renderNodeConfig(rows);
  const uuids = [...kept, telegram].map((link) => link.uuid).sort();
  t.same(Object.keys(config.clientMap), uuids);
  t.same(config.clientMap[telegram.uuid], { userId, subscriptionId: telegram.subscriptionId });
  const xray = config.services.xray;
  t.same(
    xray?.inbounds.map((inbound) => [inbound.tag, inbound.settings.clients.length]),
    [[`in-${vless}`, 2]],
  );
  t.same(
    xray?.outbounds.map((outbound) => outbound.tag),
    ['z', 'a', 'b'],
  );
  t.same(
    xray?.routing.rules.map((rule) => rule['outboundTag']),
    ['b', 'a'],
  );
  t.same(
    config.services.mtproto?.inbounds.map((inbound) => inbound.users.length),
    [1],
  );
});

t.test('many requests share one rendering, in this process and in another', async (t) => {
  const nodeId = await newNode();
  await newProtocol(nodeId, 'VLESS', 443);
  const unrendered = await wanted(nodeId);
  t.same(unrendered, { nodeId, revision: 1, contentHash: null });
  const counted = openPool(t);
  let acquired = 0;
  counted.on('acquire', () => {
    acquired += 1;
  });
  const cache = newCache({ pool: counted });
  const answers = await Promise.all(Array.from({ length: 50 }, () => cache.get(unrendered)));
  t.equal(acquired, 2, 'one to see whether it was rendered meanwhile, and one to render it');
  t.equal(new Set(answers).size, 1);
  const [first] = answers;
  t.equal(first?.revision, 1);
  t.equal(contentOf(first).services.xray.inbounds[0].port, 443);
  const current = await wanted(nodeId);
  t.equal(current.contentHash, first?.hash);
  await cache.get(current);
  const elsewhere = await newCache({ pool: counted }).get(current);
  t.equal(acquired, 2, 'then it comes from memory, and from Redis');
  t.strictSame(elsewhere, first);
  const ttlSeconds = await redis.ttl(configKey(stores.redisPrefix, nodeId, 1, first?.hash ?? ''));
  t.ok(ttlSeconds > 86_000 && ttlSeconds <= 86_400);
});

t.test('several processes that render a node at once give it one revision', async (t) => {
  const nodeId = await newNode();
  const unrendered = await wanted(nodeId);
  const caches = Array.from({ length: 8 }, () => newCache());
  const answers = await Promise.all(
    caches.map(async (cache, index) => {
      if (index === 3) await newProtocol(nodeId, 'VLESS', 443);
      return cache.get(unrendered);
    }),
  );
  // A render after the protocol was added has other bytes, and so another revision.
  const hashes = new Map<number, Set<string>>();
  for (const answer of answers) {
    const { revision = 0, hash = '' } = answer ?? {};
    hashes.set(revision, (hashes.get(revision) ?? new Set()).add(hash));
  }
  for (const [revision, found] of hashes) t.equal(found.size, 1, `revision ${revision}`);
  t.ok(Math.max(...hashes.keys()) <= 2);
});

t.test(
  'a revision that nobody keeps is rendered again, as the same one or as a new one',
  async (t) => {
    const nodeId = await newNode();
    const first = await newCache().get(await wanted(nodeId));
    const known = await wanted(nodeId);
    const drop = async () => {
      const keys = await redis.keys(`${stores.redisPrefix}:config:{${nodeId}}:*`);
      await redis.unlink(...keys);
    };
    await drop();
    t.strictSame(await newCache().get(known), first, 'the same bytes, so the same revision');
    await newProtocol(nodeId, 'TROJAN', 443);
    t.strictSame(await newCache().get(known), first, 'kept again');
    await drop();
    const after = await newCache().get(known);
    t.equal(after?.revision, 2, 'nobody can give the old bytes');
    t.equal(contentOf(after).services.xray.inbounds[0].protocol, 'trojan');
    t.same(await wanted(nodeId), { nodeId, revision: 2, contentHash: after?.hash });
  },
);

t.test(
  'Redis serves what a worker published, and the old revision for another minute',
  async (t) => {
    const nodeId = await newNode();
    const first = await newCache().get(await wanted(nodeId));
    const old = await wanted(nodeId);
    await newProtocol(nodeId, 'TROJAN', 443);
    await mark(nodeId);
    t.same((await publishNow({ pool, redis, prefix: stores.redisPrefix })).published, [nodeId]);
    const cache = newCache({ pool: (await away(t)).pool });
    const current = await wanted(nodeId);
    const second = await cache.get(current);
    t.equal(second?.revision, 2);
    t.equal(contentOf(second).services.xray.inbounds[0].protocol, 'trojan');
    t.strictSame(await cache.get(old), first);
    t.strictSame(await cache.get(current), second, 'the older one has not replaced it in memory');
    const ttlSeconds = await redis.ttl(configKey(stores.redisPrefix, nodeId, 1, first?.hash ?? ''));
    t.ok(ttlSeconds > 0 && ttlSeconds <= 60);
  },
);

t.test('a process that is behind gets the current revision', async (t) => {
  const nodeId = await newNode();
  await newCache().get(await wanted(nodeId));
  const current = await wanted(nodeId);
  for (const stale of [
    { nodeId, revision: 1, contentHash: 'f'.repeat(64) },
    { nodeId, revision: 99, contentHash: null },
  ]) {
    const answer = await newCache().get(stale);
    t.match(answer, { revision: 1, hash: current.contentHash });
  }
});

t.test('a node that does not exist has no configuration', async (t) => {
  t.equal(await newCache().get(await wanted(2_000_000)), undefined);
});

t.test('settings that cannot be rendered fail, and are not kept', async (t) => {
  const nodeId = await newNode();
  const protocolId = await newProtocol(nodeId, 'VLESS', 443);
  const spoil = (settings: string) =>
    pool.query('UPDATE node_protocols SET settings = $2 WHERE id = $1', [protocolId, settings]);
  await spoil('{"network":"carrier pigeon"}');
  const cache = newCache();
  await t.rejects(cache.get(await wanted(nodeId)), { code: 'INTERNAL' });
  await spoil('{}');
  t.equal((await cache.get(await wanted(nodeId)))?.revision, 1);
});

t.test('without Redis every process renders for itself', async (t) => {
  const { redis } = await away(t);
  const nodeId = await newNode();
  const answer = await newCache({ redis }).get(await wanted(nodeId));
  t.equal(contentOf(answer).revision, 1);
  const known = await wanted(nodeId);
  const cache = newCache({ redis });
  const again = await cache.get(known);
  t.match(again, { revision: 1, hash: answer?.hash });
  t.equal(await cache.get(known), again, 'from memory');
});

t.test('without Postgres, memory and Redis serve what they have', async (t) => {
  const gone = await away(t);
  const nodeId = await newNode();
  const kept = await newCache().get(await wanted(nodeId));
  const known = await wanted(nodeId);
  const cache = newCache({ pool: gone.pool });
  t.strictSame(await cache.get(known), kept);
  await t.rejects(cache.get({ ...known, revision: 2 }), { code: 'STORE_UNAVAILABLE', status: 503 });
  await t.rejects(newCache(gone).get(known), {
    code: 'STORE_UNAVAILABLE',
    headers: { 'Retry-After': /^\d+$/ },
  });
});

t.test('a connection that dies during a render is a 503, and the next try works', async (t) => {
  const nodeId = await newNode();
  const unrendered = await wanted(nodeId);
  const dying = openPool(t);
  const cache = newCache({ pool: dying });
  // Under the lock the render cannot end before its connection does.
  await inTransaction(pool, async (client) => {
    await client.query('LOCK TABLE node_protocols IN ACCESS EXCLUSIVE MODE');
    const refused = t.rejects(cache.get(unrendered), { code: 'STORE_UNAVAILABLE' });
    await until(
      async () =>
        (
          await client.query(
            `SELECT pg_terminate_backend(pid) FROM pg_locks
             WHERE NOT granted AND relation = 'node_protocols'::regclass`,
          )
        ).rowCount,
      (count) => count === 1,
    );
    await refused;
  });
  t.equal((await cache.get(unrendered))?.revision, 1);
});

t.test('a process that prepares 1,000 configurations refuses more, and recovers', async (t) => {
  const busy = createPool(stores.databaseUrl, { max: 1 });
  t.teardown(() => busy.end());
  const cache = newCache({ pool: busy });
  const ask = (nodeId: number) => cache.get({ nodeId, revision: 1, contentHash: null });
  const held = await busy.connect();
  const first = 3_000_000;
  const pending = Array.from({ length: 1_000 }, (_, index) => ask(first + index));
  const joined = ask(first);
  await t.rejects(ask(first + 1_000), {
    code: 'CONFIG_QUEUE_FULL',
    status: 503,
    retryable: true,
    headers: { 'Retry-After': '2' },
  });
  held.release();
  t.equal(await joined, undefined, 'a request for the same configuration shares its answer');
  t.same(new Set(await Promise.all(pending)), new Set([undefined]));
  t.equal(await ask(first + 1_000), undefined, 'then there is room again');
});

t.test('the memory is limited in bytes and drops the least recently used', async (t) => {
  const memory = createConfigMemory(100);
  const config = (nodeId: number, revision: number, bytes: number): KeptConfig => ({
    nodeId,
    revision,
    hash: 'h',
    gzip: Buffer.alloc(bytes),
  });
  const get = (nodeId: number, revision: number, contentHash = 'h') =>
    memory.get({ nodeId, revision, contentHash });
  memory.put(config(1, 1, 40));
  memory.put(config(2, 1, 40));
  t.ok(get(1, 1), 'used, so younger than 2');
  memory.put(config(3, 1, 40));
  t.equal(memory.bytes(), 80);
  t.equal(get(2, 1), undefined);
  t.ok(get(1, 1));
  t.equal(get(1, 1, 'other'), undefined, 'another hash is another configuration');
  memory.put(config(1, 3, 50));
  memory.put(config(1, 2, 20));
  t.equal(get(1, 3)?.revision, 3, 'an older revision does not replace a newer one');
  t.equal(get(1, 2), undefined);
  t.equal(memory.bytes(), 90);
  const held = get(1, 3) as KeptConfig;
  memory.putPlain(held, Buffer.alloc(51));
  t.equal(memory.getPlain(held), undefined, 'its JSON would exceed the limit');
  memory.putPlain(held, Buffer.alloc(30));
  t.equal(memory.getPlain(held)?.length, 30);
  t.equal(memory.bytes(), 80, 'it took the place of the other one');
  t.equal(memory.getPlain(config(1, 3, 50)), undefined, 'only the held one has its JSON');
  memory.put(config(3, 1, 20));
  memory.put(config(3, 2, 101));
  t.equal(get(3, 2), undefined, 'larger than the whole memory');
  t.equal(memory.bytes(), 80);
});
