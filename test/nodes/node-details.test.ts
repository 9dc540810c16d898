import t from 'tap';
import { nodeHeartbeatSchema } from '../../src/contract/node.ts';
import { createLogger } from '../../src/log.ts';
import { createNode } from '../../src/nodes/change.ts';
import { createHeartbeats } from '../../src/nodes/heartbeat.ts';
import { createVersionWriter } from '../../src/nodes/node-details.ts';
import { showNode } from '../../src/nodes/node-state.ts';
import { countVersions } from '../../src/nodes/versions.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { marksOf } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const { databaseUrl, pool } = await openStores(t, { max: 4 });
const log = createLogger('silent');

const addNode = async (): Promise<number> =>
  (await createNode(pool, { name: 'n', region: '', host: 'h', ip: '' }, options)).nodeId;
const show = (nodeId: number) => showNode(pool, nodeId, options);

t.test('versions and load are those of the newest heartbeat', async (t) => {
  const nodeId = await addNode();
  const heartbeats = createHeartbeats({ pool, log, intervalMs: 3_600_000, nowMs: Date.now });
  const load = { cpuPercent: 12.5, memoryBytes: 2 ** 40, uptimeSeconds: 86_400 };
  const versions = { agent: '1.2.0', xray: '26.7.28' };
  heartbeats.seen(nodeId, undefined, 1, { versions, load });
  await heartbeats.close();
  t.match(await show(nodeId), { versions: { ...versions, telemt: null }, load });
  t.equal(await marksOf(pool, nodeId), 1, 'the node may get another configuration');

  const others = createHeartbeats({ pool, log, intervalMs: 3_600_000, nowMs: Date.now });
  others.seen(nodeId, undefined, 1, { versions: { ...versions, agent: '1.3.0' }, load: {} });
  await others.close();
  t.match(await show(nodeId), {
    versions: { agent: '1.3.0', xray: '26.7.28' },
    load: { cpuPercent: null, memoryBytes: null, uptimeSeconds: null },
  });
  t.equal(await marksOf(pool, nodeId), 1, 'another agent changes nothing that is rendered');

  const older = createHeartbeats({ pool, log, intervalMs: 3_600_000, nowMs: Date.now });
  older.seen(nodeId, undefined, 1);
  await older.close();
  t.match(await show(nodeId), { versions: { agent: null, xray: null, telemt: null } });
  t.equal(await marksOf(pool, nodeId), 2, 'nobody knows the version any more');
});

t.test('only versions that have changed are written', async (t) => {
  const nodeIds = [await addNode(), await addNode()];
  const heartbeats = createHeartbeats({ pool, log, intervalMs: 3_600_000, nowMs: Date.now });
  for (const nodeId of nodeIds) heartbeats.seen(nodeId, undefined, 1);
  await heartbeats.close();
  const reported = (xray: string) => nodeIds.map((nodeId) => ({ nodeId, versions: { xray } }));
  const writer = createVersionWriter(Date.now);
  await writer.write(pool, reported('26.4.17'));
  const closed = createPool(databaseUrl, { max: 1 });
  await closed.end();
  await writer.write(closed, reported('26.4.17'));
  await t.rejects(writer.write(closed, reported('26.7.28')));
  await writer.write(pool, reported('26.7.28'));
  for (const nodeId of nodeIds) t.match(await show(nodeId), { versions: { xray: '26.7.28' } });
});

t.test('metrics name a bounded number of versions', async (t) => {
  await pool.query('TRUNCATE nodes CASCADE');
  const heartbeats = createHeartbeats({ pool, log, intervalMs: 3_600_000, nowMs: Date.now });
  for (let count = 1; count <= 30; count += 1) {
    const versions = { xray: `26.${count}.1` };
    heartbeats.seen(await addNode(), undefined, undefined, { versions });
  }
  await addNode();
  heartbeats.seen(await addNode(), undefined, undefined, { versions: { xray: 'own build' } });
  await heartbeats.close();
  const counts = await countVersions(pool);
  t.equal(counts.length, 21);
  t.equal(
    counts.reduce((sum, { count }) => sum + count, 0),
    32,
  );
  t.match(counts[0], { version: 'unknown', count: 2 });
  t.match(counts.at(-1), { version: 'other', count: 11 });
});

t.test(
  'a heartbeat with a version that nobody can read, or a load below 0, is refused',
  async (t) => {
    const faults = (given: object) =>
      nodeHeartbeatSchema.safeParse(given).error?.issues.map((issue) => issue.path.join('.'));
    t.same(faults({ versions: { xray: 'a\u202eb' } }), ['versions.xray']);
    t.same(faults({ versions: { agent: 'a'.repeat(65) } }), ['versions.agent']);
    t.same(faults({ load: { cpuPercent: -1, memoryBytes: 1.5, uptimeSeconds: -1 } }), [
      'load.cpuPercent',
      'load.memoryBytes',
      'load.uptimeSeconds',
    ]);
    t.equal(faults({}), undefined);
    t.equal(faults({ versions: {}, load: {}, unknown: 1 }), undefined);
  },
);
