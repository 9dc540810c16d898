import t, { type Test } from 'tap';
import { createNode } from '../../src/nodes/change.ts';
import {
  addOutboundTraffic,
  othersTag,
  unconfiguredTagsMax,
} from '../../src/nodes/outbound-traffic.ts';
import { findPrunableTags, pruneOutbounds } from '../../src/nodes/prune-outbounds.ts';
import type { OutboundTraffic } from '../../src/rows/sums.ts';
import { addOutbound, listOutbounds, removeOutbound } from '../../src/settings/outbounds.ts';
import { inTransaction } from '../../src/stores/postgres.ts';
import { post, registerTestNode, startTestApi, type TestApi, until } from '../support/api.ts';
import { startTestWorker } from '../support/worker.ts';

/** An api, and `settle`, which adds outbound traffic as the worker does. */
async function startOutbounds(t: Test) {
  const api = await startTestApi(t);
  const { pool } = api;
  const addNode = async (): Promise<number> => {
    const about = { name: 'n', region: 'eu', host: '', ip: '' };
    return (await createNode(pool, about, api.config.nodes)).nodeId;
  };
  const settle = (rows: OutboundTraffic[]) =>
    inTransaction(pool, (client) => addOutboundTraffic(client, rows));
  return { pool, addNode, settle };
}

/** One byte up and two down for each of these tags. */
const traffic = (nodeId: number, tags: readonly string[]): OutboundTraffic[] =>
  tags.map((tag) => ({ nodeId, tag, bytesUp: 1n, bytesDown: 2n }));
const tagsFrom = (first: number, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `t${String(first + index).padStart(5, '0')}`);

async function totals(pool: TestApi['pool'], nodeId: number) {
  const { rows } = await pool.query(
    `SELECT count(*) FILTER (WHERE NOT configured AND tag <> $2)::integer AS tags,
       sum(traffic_bytes_up)::text AS up, sum(traffic_bytes_down)::text AS down,
       coalesce(max(traffic_bytes_up) FILTER (WHERE tag = $2), 0)::text AS others
     FROM node_outbounds WHERE node_id = $1`,
    [nodeId, othersTag],
  );
  return rows[0];
}

t.test('64 tags that nobody configured have rows, and (others) counts the rest', async (t) => {
  const { pool, addNode, settle } = await startOutbounds(t);
  const [nodeId, other] = [await addNode(), await addNode()];
  await addOutbound(pool, { nodeId, tag: 'zz', protocol: 'freedom', settings: {} });
  await settle(traffic(nodeId, tagsFrom(0, 60)));
  t.same(await totals(pool, nodeId), { tags: 60, up: '60', down: '120', others: '0' });
  await settle([...traffic(nodeId, [...tagsFrom(60, 10), 'zz']), ...traffic(other, ['warp'])]);
  t.same(await totals(pool, nodeId), { tags: 64, up: '71', down: '142', others: '6' });
  // Known, configured and new tags and (others) at once, some of them twice.
  const more = ['t00000', 'zz', 't99999', 't99998', othersTag, 't99999'];
  await settle(traffic(nodeId, more));
  t.same(await totals(pool, nodeId), { tags: 64, up: '77', down: '154', others: '10' });
  const listed = await listOutbounds(pool, nodeId);
  const up = (tag: string) => listed.find((one) => one.tag === tag)?.trafficBytesUp;
  t.equal(up('zz'), 2, 'a configured tag keeps its own counters');
  t.equal(up('t00000'), 2);
  t.equal(up('t00063'), 1);
  t.equal(up('t00064'), undefined);
  t.match(await listOutbounds(pool, other), [{ tag: 'warp', trafficBytesUp: 1 }]);
});

t.test('more rows than the limit stay, and no row is added', async (t) => {
  const { pool, addNode, settle } = await startOutbounds(t);
  const nodeId = await addNode();
  await pool.query(
    `INSERT INTO node_outbounds (node_id, tag, configured, traffic_bytes_up)
     SELECT $1, tag, false, 1 FROM unnest($2::text[]) AS tag`,
    [nodeId, tagsFrom(0, 500)],
  );
  await settle(traffic(nodeId, ['t00499', 'new']));
  t.same(await totals(pool, nodeId), { tags: 500, up: '502', down: '4', others: '1' });
});

t.test('settles of one node at the same time keep the limit and lose nothing', async (t) => {
  const { pool, addNode, settle } = await startOutbounds(t);
  const nodeIds = [await addNode(), await addNode(), await addNode()];
  const settled = Array.from({ length: 12 }, (_, at) =>
    settle(nodeIds.flatMap((nodeId) => traffic(nodeId, tagsFrom(at * 20, 30)))),
  );
  const pruned = nodeIds.map((nodeId) => pruneOutbounds(pool, nodeId));
  await Promise.all([...settled, ...pruned]);
  for (const nodeId of nodeIds) {
    const found = await totals(pool, nodeId);
    t.ok(found.tags <= unconfiguredTagsMax, `${found.tags} tags`);
    t.match(found, { up: '360', down: '720' });
  }
});

t.test('the lock keeps two settles at the same time from exceeding the limit', async (t) => {
  const { pool, addNode } = await startOutbounds(t);
  const nodeId = await addNode();
  // The first transaction stays open, so the second one begins before it can see the first one's rows.
  const second: Promise<unknown>[] = [];
  await inTransaction(pool, async (client) => {
    await addOutboundTraffic(client, traffic(nodeId, tagsFrom(0, 60)));
    second.push(
      inTransaction(pool, (other) => addOutboundTraffic(other, traffic(nodeId, tagsFrom(100, 60)))),
    );
    await until(
      async () =>
        (
          await pool.query(`SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
        ).rowCount,
      (waiting) => waiting === 1,
    );
  });
  await Promise.all(second);
  t.same(await totals(pool, nodeId), { tags: 64, up: '120', down: '240', others: '56' });
});

t.test('pruning moves what nobody configured to (others), and the sums stay', async (t) => {
  const { pool, addNode, settle } = await startOutbounds(t);
  const nodeId = await addNode();
  const freedom = { nodeId, protocol: 'freedom', settings: {} } as const;
  await addOutbound(pool, { ...freedom, tag: 'direct' });
  await addOutbound(pool, { ...freedom, tag: 'gone' });
  await settle(traffic(nodeId, ['direct', 'gone', ...tagsFrom(0, 70)]));
  await removeOutbound(pool, { nodeId, tag: 'gone' });
  const found = { tags: 65, trafficBytesUp: 65, trafficBytesDown: 130 };
  t.same(await findPrunableTags(pool, nodeId), found);
  t.same(await pruneOutbounds(pool, nodeId), found);
  t.same(
    (await listOutbounds(pool, nodeId)).map(({ tag, trafficBytesUp }) => [tag, trafficBytesUp]),
    [
      ['direct', 1],
      [othersTag, 71],
    ],
  );
  const nothing = { tags: 0, trafficBytesUp: 0, trafficBytesDown: 0 };
  t.same(await pruneOutbounds(pool, nodeId), nothing, 'a second pruning finds nothing');
  await settle(traffic(nodeId, ['t00001']));
  t.same(await totals(pool, nodeId), { tags: 1, up: '73', down: '146', others: '71' });
  await t.rejects(pruneOutbounds(pool, 99), { code: 'NOT_FOUND' });
  await t.rejects(addOutbound(pool, { ...freedom, tag: othersTag }), { code: 'INVALID_ARGUMENT' });

  const most = 2n ** 63n - 1n;
  await settle([{ nodeId, tag: 'huge', bytesUp: most, bytesDown: most }]);
  await pruneOutbounds(pool, nodeId);
  t.match(
    await totals(pool, nodeId),
    { tags: 0, others: String(most) },
    'a counter stops at the largest bigint',
  );
});

t.test('7,000 long tags a post fill 65 rows, and every byte counts', async (t) => {
  const api = await startTestApi(t, { CORE_SPOOL_SHARDS: '1', CORE_LOAD_INTERVAL_MS: '50' });
  await startTestWorker(t, api);
  const node = await registerTestNode(api);
  const posts = 3;
  const bytesUp = Number.MAX_SAFE_INTEGER;
  for (let at = 0; at < posts; at += 1) {
    const items = Array.from({ length: 7_000 }, (_, index) => ({
      tag: `t${at}-${index}-${'é'.repeat(240)}`,
      bytesUp: index === 0 ? bytesUp : 1,
      bytesDown: 1,
    }));
    t.equal((await post(api, '/node/outbound-usage', { items }, { node })).status, 200);
  }
  const down = String(posts * 7_000);
  const found = await until(
    () => totals(api.pool, node.nodeId),
    (now) => now.down === down,
  );
  t.match(found, { tags: 64, up: String(BigInt(bytesUp) * 3n + 3n * 6_999n), down });
});
