import t from 'tap';
import { createNode } from '../../src/nodes/change.ts';
import { createVersionWriter } from '../../src/nodes/node-details.ts';
import { showNode } from '../../src/nodes/node-state.ts';
import { followSteadyVersions } from '../../src/nodes/steady-versions.ts';
import { listDrift } from '../../src/publish/drift.ts';
import { listRevisions } from '../../src/publish/revisions.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const { pool, redis, prefix } = await openStores(t, { max: 6 });
const deps = { pool, redis, prefix };
const [oldXray, newXray] = ['25.12.8', '26.7.28'];

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
});

const hysteria = {
  protocol: 'HYSTERIA2' as const,
  port: 443,
  settings: { tls: { certificateFile: '/c', keyFile: '/k', serverName: 'h.example.com' } },
};

/** A published node with Hysteria2, which Core leaves out for the old Xray, and VLESS. */
async function addNode(): Promise<number> {
  const node = { name: `n${Math.random()}`, region: '', host: 'h', ip: '' };
  const { nodeId } = await createNode(pool, node, options);
  await addProtocol(pool, { ...hysteria, nodeId });
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 8_443, settings: {} });
  await pool.query('INSERT INTO heartbeats (node_id, last_seen_at) VALUES ($1, now())', [nodeId]);
  return nodeId;
}

async function addUser(): Promise<void> {
  const userId = await createUser(pool, { name: 'u' });
  await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null });
}

/** A writer of its own for each heartbeat, as if every heartbeat reached another api process. */
async function beat(nodeId: number, xray: string | undefined): Promise<void> {
  await createVersionWriter(Date.now).write(pool, [{ nodeId, versions: { xray } }]);
  await publishNow(deps);
}

const show = (nodeId: number) => showNode(pool, nodeId, options);
const revisionOf = async (nodeId: number) => (await show(nodeId)).revision;
const hourLater = (nodeId: number) =>
  pool.query(
    `UPDATE heartbeats SET xray_changed_at = xray_changed_at - interval '61 minutes'
     WHERE node_id = $1`,
    [nodeId],
  );

t.test('an upgrade, the way back and another try are followed at once', async (t) => {
  const nodeId = await addNode();
  await addUser();
  await beat(nodeId, oldXray);
  const before = await revisionOf(nodeId);
  await beat(nodeId, newXray);
  await beat(nodeId, oldXray);
  t.equal(await revisionOf(nodeId), before + 2);
  t.match(await show(nodeId), { versions: { xray: oldXray }, versionsInTurn: null });
  t.match((await listDrift(pool, options))[0]?.versionFaults, [{ isLeftOut: true }]);
});

t.test('a version that flaps makes three revisions, and then none', async (t) => {
  const [nodeId, other] = [await addNode(), await addNode()];
  await addUser();
  await publishNow(deps);
  await beat(other, newXray);
  const revisionOfOther = await revisionOf(other);
  for (let count = 0; count < 40; count += 1) {
    await beat(nodeId, count % 2 === 0 ? oldXray : newXray);
  }
  const revisions = await listRevisions(pool, nodeId);
  t.ok(revisions.length <= 5, `${revisions.length} revisions`);
  t.equal(await revisionOf(other), revisionOfOther, 'other nodes do not notice');
  t.match(await show(nodeId), {
    versions: { xray: newXray },
    versionsInTurn: { renderedFor: oldXray, changes: 40, newestAt: Date },
  });
  t.match(
    (await listDrift(pool, options)).find((one) => one.nodeId === nodeId),
    {
      versionsInTurn: { renderedFor: oldXray },
      versionFaults: [{ isLeftOut: true, message: /the node runs 25\.12\.8/ }],
    },
  );

  await followSteadyVersions(pool);
  await publishNow(deps);
  const still = await revisionOf(nodeId);
  t.equal(still, revisions[0]?.revision, 'an hour is not over');
  await hourLater(nodeId);
  await followSteadyVersions(pool);
  await followSteadyVersions(pool);
  await publishNow(deps);
  t.equal(await revisionOf(nodeId), still + 1, 'a version that stays is followed');
  t.match(await show(nodeId), { versionsInTurn: null });
  t.match((await listRevisions(pool, nodeId))[0]?.causes, ['version of Xray']);
});

t.test('an agent that lies about its version gets a bounded number of revisions', async (t) => {
  const nodeId = await addNode();
  await addUser();
  for (let count = 0; count < 30; count += 1) {
    const lies = [`99.${count}.1`, 'no version', undefined, `1.${30 - count}.0`, '26.4.1'];
    await beat(nodeId, lies[count % lies.length]);
  }
  t.ok((await listRevisions(pool, nodeId)).length <= 5);
  t.match(await show(nodeId), { status: 'pending', publishError: null });
});

t.test('a version that another process wrote meanwhile is written again', async (t) => {
  const nodeId = await addNode();
  let atMs = 0;
  const [one, another] = [createVersionWriter(() => atMs), createVersionWriter(() => atMs)];
  const write = (writer: typeof one, xray: string) =>
    writer.write(pool, [{ nodeId, versions: { xray } }]);
  await write(one, oldXray);
  await write(another, newXray);
  atMs = 60_000;
  await write(one, oldXray);
  t.match(await show(nodeId), { versions: { xray: oldXray } });
});
