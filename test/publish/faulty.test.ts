import { gunzipSync } from 'node:zlib';
import t from 'tap';
import { createLogger } from '../../src/log.ts';
import { createNode } from '../../src/nodes/change.ts';
import { hashAuthKey } from '../../src/nodes/directory.ts';
import { createHeartbeats } from '../../src/nodes/heartbeat.ts';
import { showNode } from '../../src/nodes/node-state.ts';
import { recordApplied } from '../../src/nodes/reports.ts';
import { fetchConfig } from '../../src/publish/config-store.ts';
import { listDrift } from '../../src/publish/drift.ts';
import { countFaulty, reportNodeError } from '../../src/publish/faulty.ts';
import { listRevisions } from '../../src/publish/revisions.ts';
import { endRollback, rollBackNode } from '../../src/publish/rollback.ts';
import { addProtocol, removeProtocol, setProtocol } from '../../src/settings/protocols.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const { pool, redis, prefix } = await openStores(t, { max: 6 });
const deps = { pool, redis, prefix };
const log = createLogger('silent');

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
});

const show = (nodeId: number) => showNode(pool, nodeId, options);
const vless = async (nodeId: number, port: number) =>
  (await addProtocol(pool, { nodeId, protocol: 'VLESS', port, settings: {} })).nodeProtocolId;
const report = (nodeId: number, error: { code?: string; details?: Record<string, unknown> } = {}) =>
  reportNodeError(pool, nodeId, { message: 'no such file', ...error }, { rollsBack: true });

async function beat(nodeId: number, revision: number): Promise<void> {
  const heartbeats = createHeartbeats({ pool, log, intervalMs: 3_600_000, nowMs: Date.now });
  heartbeats.seen(nodeId, undefined, revision);
  await heartbeats.close();
}

async function addUser(): Promise<string[]> {
  const userId = await createUser(pool, { name: 'u' });
  const added = { userId, trafficLimitBytes: null, expiresAt: null };
  return (await createSubscription(pool, added)).links.map((link) => link.uuid);
}

/** A node with a key, as after its registration. */
async function addNode(): Promise<number> {
  const node = { name: 'n', region: '', host: 'h', ip: '' };
  const { nodeId } = await createNode(pool, node, options);
  await pool.query('UPDATE nodes SET auth_key_hash = $2 WHERE id = $1', [
    nodeId,
    hashAuthKey(`key ${nodeId}`),
  ]);
  return nodeId;
}

/** A node that applied revision 1, with VLESS on 443, and whose revision 2 has 8443, too. */
async function addNodeWithNewProtocol() {
  const nodeId = await addNode();
  await vless(nodeId, 443);
  await publishNow(deps);
  await recordApplied(pool, nodeId, 1);
  await beat(nodeId, 1);
  const added = await vless(nodeId, 8443);
  await publishNow(deps);
  return { nodeId, added };
}

async function served(nodeId: number) {
  const { rows } = await pool.query<{ revision: number; hash: string }>(
    `SELECT revision, encode(content_hash, 'hex') AS hash FROM nodes WHERE id = $1`,
    [nodeId],
  );
  const [row] = rows;
  const kept = row === undefined ? undefined : await fetchConfig(deps, { nodeId, ...row });
  if (kept === undefined) throw new Error('nothing is served');
  const config = JSON.parse(gunzipSync(kept.gzip).toString());
  const ports = (config.services.xray?.inbounds ?? []).map((one: { port: number }) => one.port);
  return { revision: config.revision, ports, uuids: Object.keys(config.clientMap) };
}

t.test(
  'a node that refuses its newest settings goes on with those before, and gets new users',
  async (t) => {
    const { nodeId } = await addNodeWithNewProtocol();
    t.same((await served(nodeId)).ports, [443, 8443]);
    await report(nodeId, { code: 'CONFIG_REFUSED', details: { revision: 2 } });
    const uuids = await addUser();
    await publishNow(deps);
    const now = await served(nodeId);
    t.match(now, { revision: 3, ports: [443] });
    t.ok(
      uuids.some((uuid) => now.uuids.includes(uuid)),
      'the new user gets in',
    );

    await recordApplied(pool, nodeId, 3);
    const faulty = { revision: 2, message: 'no such file', code: 'CONFIG_REFUSED' };
    t.match(await show(nodeId), {
      status: 'error',
      syncStatus: 'synced',
      rolledBackTo: 1,
      faulty: { ...faulty, refusesLastGood: false },
      lastError: null,
    });
    t.match((await listDrift(pool, options))[0], { rolledBackTo: 1, faulty });
    t.match(await countFaulty(pool), { nodes: 1, since: Date });
    t.match((await listRevisions(pool, nodeId))[0]?.causes, [
      'node refused 2: rollback to 1 by Core',
    ]);
  },
);

t.test('a change of the settings ends the rollback and its alarm', async (t) => {
  const { nodeId, added } = await addNodeWithNewProtocol();
  await report(nodeId);
  await publishNow(deps);
  await setProtocol(pool, added, { port: 9443 });
  await publishNow(deps);
  t.same((await served(nodeId)).ports, [443, 9443]);
  t.match(await show(nodeId), { rolledBackTo: null, faulty: null });
  await report(nodeId);
  await publishNow(deps);
  t.same((await served(nodeId)).ports, [443], 'these settings are refused, too');
});

t.test('an operator can have the same settings tried again', async (t) => {
  const { nodeId } = await addNodeWithNewProtocol();
  await t.rejects(endRollback(pool, nodeId), { message: /Node 1 is not rolled back/ });
  await report(nodeId);
  await publishNow(deps);
  t.same(await endRollback(pool, nodeId), { nodeId, rolledBackTo: null });
  await publishNow(deps);
  t.match(await served(nodeId), { revision: 4, ports: [443, 8443] });
  t.match(await show(nodeId), { faulty: null });
});

t.test('a node that refuses the settings before, too, is not rolled back further', async (t) => {
  const { nodeId } = await addNodeWithNewProtocol();
  await report(nodeId);
  await report(nodeId, { details: { revision: 2 } });
  t.match(await show(nodeId), { faulty: { revision: 2, refusesLastGood: false } }, 'the same one');
  await publishNow(deps);
  for (let count = 0; count < 3; count += 1) await report(nodeId);
  t.match(await show(nodeId), { rolledBackTo: 1, faulty: { revision: 2, refusesLastGood: true } });
  await publishNow(deps);
  t.equal((await served(nodeId)).revision, 3);
  await recordApplied(pool, nodeId, 3);
  t.match(await show(nodeId), { faulty: { refusesLastGood: false } });
});

t.test('what is not about the newest settings rolls nothing back', async (t) => {
  const { nodeId } = await addNodeWithNewProtocol();
  const isRolledBack = async () => (await show(nodeId)).rolledBackTo !== null;
  await report(nodeId, { code: 'SPOOL_FULL' });
  t.notOk(await isRolledBack(), 'a code that says something else');
  await report(nodeId, { code: 'PROXY_EXITED', details: { revision: 1 } });
  t.notOk(await isRolledBack(), 'the revision that it runs');
  await report(nodeId, { details: { revision: 7 } });
  await report(nodeId, { details: { revision: 2 ** 40 } });
  t.notOk(await isRolledBack(), 'a revision that Core never issued');
  await reportNodeError(pool, nodeId, { message: 'x' }, { rollsBack: false });
  t.notOk(await isRolledBack(), 'the setting is off');
  await vless(nodeId, 9443);
  await report(nodeId);
  t.notOk(await isRolledBack(), 'a change of the settings waits: it may be the correction');
  await publishNow(deps);
  await report(nodeId, { details: { revision: 2 } });
  t.notOk(await isRolledBack(), 'revision 2 had other settings');
  await beat(nodeId, 3);
  await report(nodeId);
  t.notOk(await isRolledBack(), 'the node says that it runs the newest revision');
  await beat(nodeId, 1);
  await rollBackNode(pool, nodeId, 2);
  await publishNow(deps);
  await report(nodeId);
  t.match(await show(nodeId), { rolledBackTo: 2, faulty: null }, "an operator's rollback stays");
});

t.test('users that a node refuses cannot be helped by other settings', async (t) => {
  const { nodeId } = await addNodeWithNewProtocol();
  await recordApplied(pool, nodeId, 2);
  await addUser();
  await publishNow(deps);
  await report(nodeId);
  t.match(await show(nodeId), { status: 'error', revision: 3, rolledBackTo: null, faulty: null });
});

t.test('a node that never applied anything has nothing to go back to', async (t) => {
  const nodeId = await addNode();
  await vless(nodeId, 443);
  await publishNow(deps);
  await report(nodeId);
  t.match(await show(nodeId), { status: 'error', rolledBackTo: null });
});

t.test('a rollback never brings back a protocol that was removed', async (t) => {
  const { nodeId, added } = await addNodeWithNewProtocol();
  await recordApplied(pool, nodeId, 2);
  await addUser();
  await removeProtocol(pool, added);
  const third = await vless(nodeId, 9443);
  await publishNow(deps);
  t.same(await rollBackNode(pool, nodeId), {
    nodeId,
    rolledBackTo: 2,
    leftOut: [{ nodeProtocolId: added, protocol: 'VLESS', port: 8443 }],
  });
  await publishNow(deps);
  t.same((await served(nodeId)).ports, [443], 'nobody could use the port of the removed one');
  t.match((await listRevisions(pool, nodeId))[0]?.causes, [
    /rollback to 2 without removed protocol 2/,
  ]);
  t.match((await listDrift(pool, options))[0], { leftOut: [{ nodeProtocolId: added }] });

  for (const id of [1, third]) await removeProtocol(pool, id);
  await vless(nodeId, 7443);
  await publishNow(deps);
  await t.rejects(rollBackNode(pool, nodeId, 2), {
    code: 'INVALID_ARGUMENT',
    message: /All protocols of revision 2 of node 1 were removed since/,
  });
  await report(nodeId);
  t.match(await show(nodeId), { rolledBackTo: null }, 'nor does Core go back to nothing');
});

t.test('a restored database does not issue a number again that a node reports', async (t) => {
  const { nodeId } = await addNodeWithNewProtocol();
  await beat(nodeId, 8);
  await vless(nodeId, 9443);
  await publishNow(deps);
  t.equal((await served(nodeId)).revision, 9);
  for (const never of [3, 8, 10]) {
    await t.rejects(recordApplied(pool, nodeId, never), { code: 'REVISION_NEVER_ISSUED' });
  }
  for (const issued of [2, 9]) await recordApplied(pool, nodeId, issued);
  await beat(nodeId, 2_147_483_647);
  await vless(nodeId, 10_443);
  await publishNow(deps);
  t.equal((await served(nodeId)).revision, 10, 'a number that no Core can have issued is ignored');
});
