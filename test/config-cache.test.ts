import { once } from 'node:events';
import { gunzipSync } from 'node:zlib';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import t, { type Test } from 'tap';
import { createLogger } from '../src/log.ts';
import { type CachedConfig, createConfigCache } from '../src/render/config-cache.ts';
import { createConfigMemory } from '../src/render/config-memory.ts';
import { loadNodeRows } from '../src/render/load.ts';
import { renderNodeConfig } from '../src/render/render.ts';
import { migratePostgres } from '../src/stores/migrate.ts';
import { createPool, inTransaction } from '../src/stores/postgres.ts';
import { createRedis } from '../src/stores/redis.ts';
import { freePorts } from './support/free-port.ts';
import { freshStores } from './support/stores.ts';

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
const newProtocol = (nodeId: number, protocol: string, port: number) =>
  insertedId('INSERT INTO node_protocols (node_id, protocol, port) VALUES ($1, $2, $3)', [
    nodeId,
    protocol,
    port,
  ]);
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
  const link = await pool.query<{ uuid: string }>(
    `INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id)
     VALUES (gen_random_uuid(), $1, $2) RETURNING uuid`,
    [subscriptionId, options.protocolId],
  );
  return { uuid: String(link.rows[0]?.uuid), subscriptionId };
}

const bump = (nodeId: number) =>
  pool.query('UPDATE nodes SET revision = revision + 1 WHERE id = $1', [nodeId]);

function newCache(given: { pool?: pg.Pool; redis?: Redis; prefix?: string } = {}) {
  return createConfigCache({ pool, redis, prefix: stores.redisPrefix, ...given });
}

function contentOf(config: CachedConfig | undefined) {
  if (config === undefined) throw new Error('no config');
  const content = JSON.parse(config.json.toString());
  if (content.revision !== config.revision) throw new Error('revision differs from its content');
  return content;
}

t.test('loads what the node should run and nothing else', async (t) => {
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
  const rows = await loadNodeRows(client, nodeId);
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

t.test('is rendered once however many ask, here or in another process', async (t) => {
  const nodeId = await newNode();
  await newProtocol(nodeId, 'VLESS', 443);
  const counted = openPool(t);
  let acquired = 0;
  counted.on('acquire', () => {
    acquired += 1;
  });
  const cache = newCache({ pool: counted });
  const answers = await Promise.all(Array.from({ length: 50 }, () => cache.get(nodeId, 1)));
  t.equal(acquired, 1);
  t.equal(new Set(answers).size, 1);
  const [first] = answers;
  t.equal(contentOf(first).services.xray.inbounds[0].port, 443);
  t.strictSame(gunzipSync(first?.gzip ?? ''), first?.json);
  await cache.get(nodeId, 1);
  const elsewhere = await newCache({ pool: counted }).get(nodeId, 1);
  t.equal(acquired, 1, 'from memory, and from Redis');
  t.strictSame(elsewhere, first);
  const ttlSeconds = await redis.ttl(`${stores.redisPrefix}:config:{${nodeId}}:1`);
  t.ok(ttlSeconds > 86_000 && ttlSeconds <= 86_400);
});

t.test('a revision has the same bytes for good; the next one is new', async (t) => {
  const nodeId = await newNode();
  const before = await newCache().get(nodeId, 1);
  await newProtocol(nodeId, 'TROJAN', 443);
  // The revision was not bumped, so what was rendered first stands, for another process too.
  t.strictSame(await newCache().get(nodeId, 1), before);
  await bump(nodeId);
  const cache = newCache();
  const after = await cache.warm(nodeId);
  t.equal(after?.revision, 2);
  t.equal(contentOf(after).services.xray.inbounds[0].protocol, 'trojan');
  t.equal(await cache.get(nodeId, 2), after, 'warm in memory');
  t.strictSame(await cache.get(nodeId, 1), before, 'the old one is still kept');
});

t.test('of two renders at once the first one kept wins', async (t) => {
  const nodeId = await newNode();
  const caches = Array.from({ length: 8 }, () => newCache());
  const answers = await Promise.all(
    caches.map(async (cache, index) => {
      if (index === 3) await newProtocol(nodeId, 'VLESS', 443);
      return cache.get(nodeId, 1);
    }),
  );
  for (const answer of answers) t.strictSame(answer, answers[0]);
});

t.test('answers the current revision where the asked one is gone', async (t) => {
  const nodeId = await newNode();
  await bump(nodeId);
  const cache = newCache();
  for (const asked of [1, 99]) {
    const answer = await cache.get(nodeId, asked);
    t.equal(answer?.revision, 2);
    contentOf(answer);
  }
  const keys = await redis.keys(`${stores.redisPrefix}:config:{${nodeId}}:*`);
  t.same(keys, [`${stores.redisPrefix}:config:{${nodeId}}:2`]);
});

t.test('there is none for a node that does not exist', async (t) => {
  const cache = newCache();
  t.equal(await cache.get(2_000_000, 1), undefined);
  t.equal(await cache.warm(2_000_000), undefined);
  t.equal(await redis.exists(`${stores.redisPrefix}:config:{2000000}:1`), 0);
});

t.test('settings that cannot be rendered fail, and are not kept', async (t) => {
  const nodeId = await newNode();
  const protocolId = await newProtocol(nodeId, 'HYSTERIA2', 443);
  const cache = newCache();
  await t.rejects(cache.get(nodeId, 1), { code: 'INTERNAL' });
  await pool.query(`UPDATE node_protocols SET protocol = 'VLESS' WHERE id = $1`, [protocolId]);
  t.equal((await cache.get(nodeId, 1))?.revision, 1);
});

t.test('without Redis every process renders for itself', async (t) => {
  const { redis } = await away(t);
  const nodeId = await newNode();
  const cache = newCache({ redis });
  const answer = await cache.get(nodeId, 1);
  t.equal(contentOf(answer).revision, 1);
  t.equal(await cache.get(nodeId, 1), answer, 'from memory');
});

t.test('without Postgres what is kept is served', async (t) => {
  const gone = await away(t);
  const nodeId = await newNode();
  const kept = await newCache().get(nodeId, 1);
  const cache = newCache({ pool: gone.pool });
  t.strictSame(await cache.get(nodeId, 1), kept);
  await t.rejects(cache.get(nodeId, 2), { code: 'STORE_UNAVAILABLE', status: 503 });
  await t.rejects(cache.warm(nodeId), { code: 'STORE_UNAVAILABLE' });
  const neither = newCache(gone);
  await t.rejects(neither.get(nodeId, 1), {
    code: 'STORE_UNAVAILABLE',
    headers: { 'Retry-After': /^\d+$/ },
  });
});

t.test('a connection that dies during a render is a 503, and the next try works', async (t) => {
  const nodeId = await newNode();
  const dying = openPool(t);
  const cache = newCache({ pool: dying });
  // Under the lock the render cannot end before its connection does.
  await inTransaction(pool, async (client) => {
    await client.query('LOCK TABLE node_protocols IN ACCESS EXCLUSIVE MODE');
    const acquired = once(dying, 'acquire');
    const refused = t.rejects(cache.get(nodeId, 1), { code: 'STORE_UNAVAILABLE' });
    const [connection] = (await acquired) as [{ processID: number }];
    await client.query('SELECT pg_terminate_backend($1)', [connection.processID]);
    await refused;
  });
  t.equal((await cache.get(nodeId, 1))?.revision, 1);
});

t.test('the memory is bounded in bytes and drops what was not used', async (t) => {
  const memory = createConfigMemory(100);
  const config = (revision: number, bytes: number): CachedConfig => ({
    revision,
    json: Buffer.alloc(bytes - 10),
    gzip: Buffer.alloc(10),
  });
  memory.put(1, config(1, 40));
  memory.put(2, config(1, 40));
  t.ok(memory.get(1, 1), 'used, so younger than 2');
  memory.put(3, config(1, 40));
  t.equal(memory.bytes(), 80);
  t.equal(memory.get(2, 1), undefined);
  t.ok(memory.get(1, 1));
  memory.put(1, config(3, 50));
  memory.put(1, config(2, 20));
  t.equal(memory.get(1, 3)?.revision, 3, 'an older revision does not replace a newer one');
  t.equal(memory.get(1, 2), undefined);
  t.equal(memory.bytes(), 90);
  memory.put(3, config(2, 101));
  t.equal(memory.get(3, 2), undefined, 'over the bound by itself');
  t.equal(memory.bytes(), 50);
});
