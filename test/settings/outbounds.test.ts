import t from 'tap';
import { createNode } from '../../src/nodes/change.ts';
import { addOutboundTraffic } from '../../src/nodes/outbound-traffic.ts';
import { addOutbound, listOutbounds } from '../../src/settings/outbounds.ts';
import { inTransaction } from '../../src/stores/postgres.ts';
import { marksOf } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const { pool } = await openStores(t, { max: 4 });

async function addNode(): Promise<number> {
  const node = { name: 'n', region: 'eu', host: '', ip: '' };
  return (await createNode(pool, node, { registrationSeconds: 60 })).nodeId;
}

t.test('outbounds have counters, whether an operator configured them or not', async (t) => {
  const nodeId = await addNode();
  const other = await addNode();
  const add = (rows: Parameters<typeof addOutboundTraffic>[1]) =>
    inTransaction(pool, (client) => addOutboundTraffic(client, rows));
  t.same(await listOutbounds(pool, nodeId), []);
  t.same(
    await add([
      { nodeId, tag: 'warp', bytesUp: 5n, bytesDown: 7n },
      { nodeId: 99, tag: 'warp', bytesUp: 1n, bytesDown: 1n },
      { nodeId: other, tag: 'nul\u0000', bytesUp: 1n, bytesDown: 0n },
      { nodeId: other, tag: 'nul\uFFFD', bytesUp: 1n, bytesDown: 0n },
    ]),
    { dropped: 1 },
    'rows of a node that does not exist are dropped',
  );
  t.same(await add([]), { dropped: 0 });
  t.same(await listOutbounds(pool, nodeId), [
    {
      tag: 'warp',
      trafficBytesUp: 5,
      trafficBytesDown: 7,
      configured: false,
      protocol: null,
      settings: {},
      options: {},
    },
  ]);
  t.match(
    await listOutbounds(pool, other),
    [{ tag: 'nul\uFFFD', trafficBytesUp: 2 }],
    'a character that Postgres cannot hold is replaced',
  );

  const freedom = { nodeId, protocol: 'freedom', settings: {} } as const;
  await addOutbound(pool, { ...freedom, tag: 'direct' });
  t.equal(await marksOf(pool, nodeId), 1);
  await addOutbound(pool, { ...freedom, tag: 'warp' });
  await add([{ nodeId, tag: 'warp', bytesUp: 1n, bytesDown: 1n }]);
  t.match(await listOutbounds(pool, nodeId), [
    { tag: 'direct', trafficBytesUp: 0, trafficBytesDown: 0, configured: true },
    { tag: 'warp', trafficBytesUp: 6, trafficBytesDown: 8, configured: true },
  ]);
  await t.rejects(addOutbound(pool, { ...freedom, tag: 'direct' }), {
    code: 'INVALID_ARGUMENT',
    message: `Node ${nodeId} has an outbound direct already`,
  });
  await t.rejects(addOutbound(pool, { ...freedom, nodeId: 99, tag: 'direct' }), {
    code: 'NOT_FOUND',
  });
  await t.rejects(listOutbounds(pool, 99), { code: 'NOT_FOUND' });

  const huge = 2n ** 80n;
  await add([{ nodeId, tag: 'warp', bytesUp: huge, bytesDown: 1n }]);
  await add([{ nodeId, tag: 'warp', bytesUp: huge, bytesDown: 1n }]);
  const { rows } = await pool.query(
    "SELECT traffic_bytes_up::text AS up FROM node_outbounds WHERE tag = 'warp'",
  );
  t.equal(rows[0].up, '9223372036854775807', 'a counter stops at the largest bigint');
});
