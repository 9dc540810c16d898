import t from 'tap';
import { readMigrations } from '../../src/stores/migrate.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { readLinks } from '../../src/subscriptions/links.ts';
import { freshStores } from '../support/stores.ts';

const [one, alike, other] = [
  '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11',
  '0b8f5f26-3c1d-0001-9a47-6f1f0c5d7e11',
  '9c2e4d88-71aa-4f0b-8d53-2b6a9e7f4c22',
] as const;

t.test('an upgrade keeps the links of every subscription', async (t) => {
  const stores = await freshStores(t);
  const pool = createPool(stores.databaseUrl);
  t.teardown(() => pool.end());
  const migrations = await readMigrations('postgres');
  const lastBeforeGroups = 10;
  const apply = async (wanted: (version: number) => boolean) => {
    for (const { version, sql } of migrations) if (wanted(version)) await pool.query(sql);
  };
  await apply((version) => version <= lastBeforeGroups);
  await pool.query(`
    INSERT INTO users (name) VALUES ('u');
    INSERT INTO nodes (name) VALUES ('n');
    INSERT INTO node_protocols (node_id, protocol, port) VALUES (1, 'VLESS', 443), (1, 'TROJAN', 444);
    INSERT INTO subscriptions (user_id) VALUES (1), (1), (1)`);
  const uuids = [one, alike, other];
  const second = uuids.map((uuid) => uuid.replace('0', '7'));
  for (const [at, uuid] of uuids.entries()) {
    await pool.query(
      `INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id)
       VALUES ($1, $3, 1), ($2, $3, 2)`,
      [uuid, second[at]?.replace('9c2e', '1c2e'), at + 1],
    );
  }
  await apply((version) => version > lastBeforeGroups);
  const read = async (subscriptionId: number) =>
    (await readLinks(pool, { subscriptionId })).map(({ uuid, credential }) => [uuid, credential]);
  const [first = [], renewed = [], third = []] = [await read(1), await read(2), await read(3)];
  t.same(first[0], [one, one]);
  t.equal(first.length, 2);
  t.equal(renewed[0]?.[0], alike, 'the UUID stays');
  t.not(renewed[0]?.[1], alike, 'VLESS took both for one user, so the second has a new credential');
  t.same(third[0], [other, other]);
});
