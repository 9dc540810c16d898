import { gunzipSync } from 'node:zlib';
import t from 'tap';
import { createLogger } from '../../src/log.ts';
import { bumpNodes } from '../../src/nodes/bump.ts';
import { createNode, revokeNode, updateNode } from '../../src/nodes/change.ts';
import { createHeartbeats } from '../../src/nodes/heartbeat.ts';
import { showNode } from '../../src/nodes/node-state.ts';
import { listErrors, recordApplied, reportsKept } from '../../src/nodes/reports.ts';
import { fetchConfig } from '../../src/publish/config-store.ts';
import { countUnpublished, listDrift } from '../../src/publish/drift.ts';
import { reportNodeError } from '../../src/publish/faulty.ts';
import { publishDue } from '../../src/publish/publish.ts';
import { startPublisher } from '../../src/publish/publisher.ts';
import { listRevisions, pruneRevisions, revisionsKept } from '../../src/publish/revisions.ts';
import { rollBackNode } from '../../src/publish/rollback.ts';
import { addOutbound, removeOutbound } from '../../src/settings/outbounds.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { advisoryLocks } from '../../src/stores/advisory-locks.ts';
import { inTransaction } from '../../src/stores/postgres.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { until } from '../support/api.ts';
import { agePublished, publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const { databaseUrl, pool, redis, prefix } = await openStores(t, { max: 6 });
const log = createLogger('silent');
const deps = { pool, redis, prefix };

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
});

async function addNode(): Promise<number> {
  return (await createNode(pool, { name: 'n', region: '', host: 'h', ip: '' }, options)).nodeId;
}
const mark = (ids: number[], cause = 'change') =>
  inTransaction(pool, (client) => bumpNodes(client, ids, cause));
const show = (nodeId: number) => showNode(pool, nodeId, options);
const freedom = (nodeId: number, tag: string) =>
  addOutbound(pool, { nodeId, tag, protocol: 'freedom', settings: {} });
const vless = (nodeId: number, port: number) =>
  addProtocol(pool, { nodeId, protocol: 'VLESS', port, settings: {} });

/** A node with an inbound, since otherwise its configuration has no outbounds. */
async function addServing(): Promise<number> {
  const nodeId = await addNode();
  await vless(nodeId, 443);
  return nodeId;
}

/** The configuration that Redis has for a node now. */
async function served(nodeId: number) {
  const { rows } = await pool.query<{ revision: number; hash: string }>(
    `SELECT revision, encode(content_hash, 'hex') AS hash FROM nodes WHERE id = $1`,
    [nodeId],
  );
  const row = rows[0];
  const kept = row === undefined ? undefined : await fetchConfig(deps, { nodeId, ...row });
  return kept === undefined ? undefined : JSON.parse(gunzipSync(kept.gzip).toString());
}

t.test('a change of bytes is a new revision, and nothing else is', async (t) => {
  const nodeId = await addNode();
  t.same(await publishNow(deps), { published: [], unchanged: [], failed: [] }, 'not marked');
  await vless(nodeId, 443);
  t.same(await publishNow(deps), { published: [nodeId], unchanged: [], failed: [] });
  t.equal(
    (await served(nodeId)).revision,
    1,
    'a new node has the number 1 already, and its first rendering gets it',
  );
  await mark([nodeId], 'nothing');
  t.match(await show(nodeId), { revision: 1, unpublishedSince: Date });
  t.same(await publishNow(deps), { published: [], unchanged: [nodeId], failed: [] });
  t.match(await show(nodeId), { revision: 1, unpublishedSince: null });
  t.same(await publishNow(deps), { published: [], unchanged: [], failed: [] });
  await freedom(nodeId, 'direct');
  await freedom(nodeId, 'warp');
  t.same((await publishNow(deps)).published, [nodeId]);
  t.equal((await served(nodeId)).revision, 2, 'two changes, one revision');
  await removeOutbound(pool, { nodeId, tag: 'warp' });
  await freedom(nodeId, 'warp');
  t.same((await publishNow(deps)).unchanged, [nodeId], 'the bytes are those of before');
  t.match(await listRevisions(pool, nodeId), [
    { revision: 2, causes: ['outbound direct added', 'outbound warp added'], isCurrent: true },
    { revision: 1, causes: ['protocol 1 added'], isCurrent: false },
  ]);
  await mark([nodeId]);
  await revokeNode(pool, nodeId);
  t.same((await publishNow(deps)).unchanged, [], 'a revoked node is left alone');
  t.same(await countUnpublished(pool), { nodes: 0, since: null });
});

t.test('a node gets one revision a second, and none while another worker renders it', async (t) => {
  const [first, second] = [await addServing(), await addServing()];
  await publishNow(deps);
  for (const nodeId of [first, second]) await freedom(nodeId, 'warp');
  // Revisions from the future are less than a second old, no matter how slow this test runs.
  await agePublished(pool, -600);
  t.same((await publishDue(deps, [first, second])).published, []);
  t.match(await countUnpublished(pool), { nodes: 2, since: Date });
  await agePublished(pool, 1);
  const other = await pool.connect();
  await other.query('SELECT pg_advisory_lock($1, $2)', [advisoryLocks.node, first]);
  t.same((await publishDue(deps, [first, second])).published, [second]);
  await other.query('SELECT pg_advisory_unlock($1, $2)', [advisoryLocks.node, first]);
  other.release();
  t.same((await publishDue(deps, [first, second])).published, [first], 'no lock is left');
});

t.test('a change that comes during a render waits for the next', async (t) => {
  const nodeId = await addServing();
  await publishNow(deps);
  await mark([nodeId], 'first');
  await freedom(nodeId, 'one');
  await agePublished(pool, 60);
  // This transaction marks the node, and the commit of the revision waits for it.
  let publishing: Promise<unknown> = Promise.resolve();
  await inTransaction(pool, async (client) => {
    await client.query('SELECT 1 FROM nodes WHERE id = $1 FOR NO KEY UPDATE', [nodeId]);
    publishing = publishDue(deps, [nodeId]);
    await until(
      async () =>
        (await client.query('SELECT 1 FROM pg_stat_activity WHERE wait_event_type = $1', ['Lock']))
          .rowCount,
      (count) => count === 1,
    );
    await bumpNodes(client, [nodeId], 'second');
  });
  await publishing;
  const causes = async () =>
    (await pool.query('SELECT change_causes AS causes FROM nodes')).rows[0].causes;
  t.same(await causes(), ['second'], 'still marked, for the change that the render did not see');
  t.match((await listRevisions(pool, nodeId))[0], { causes: ['first', 'outbound one added'] });
  t.same((await publishNow(deps)).unchanged, [nodeId]);
  t.same(await causes(), []);
});

t.test('a node that cannot be rendered keeps what it runs, and others are published', async (t) => {
  const [broken, whole] = [await addNode(), await addNode()];
  for (const nodeId of [broken, whole]) await vless(nodeId, 443);
  await publishNow(deps);
  for (const nodeId of [broken, whole]) await freedom(nodeId, 'warp');
  const spoil = (settings: string) =>
    pool.query('UPDATE node_protocols SET settings = $2 WHERE node_id = $1', [broken, settings]);
  await spoil('{"network":"pigeon"}');
  const outcome = await publishNow(deps);
  t.same(outcome.published, [whole]);
  t.match(outcome.failed, [{ nodeId: broken, error: { code: 'INTERNAL' } }]);
  t.match(await listDrift(pool, options), [
    { nodeId: broken, revision: 1, publishError: /network/, unpublishedSince: Date },
    { nodeId: whole, revision: 2, publishError: null, unpublishedSince: null },
  ]);
  t.same((await publishDue(deps, [broken])).failed, [], 'no second attempt for 30 s');
  await spoil('{}');
  await mark([broken]);
  t.same((await publishDue(deps, [broken])).published, [broken], 'unless the node changes');
  t.match(await show(broken), { publishError: null });
});

t.test('a publisher publishes what Postgres notifies, and few revisions for a burst', async (t) => {
  const nodeId = await addNode();
  const idle = await addNode();
  for (const id of [nodeId, idle]) await vless(id, 443);
  await publishNow(deps);
  const userId = await createUser(pool, { name: 'u' });
  const publisher = startPublisher({ ...deps, databaseUrl, log });
  t.teardown(() => publisher.close());
  const second = startPublisher({ ...deps, databaseUrl, log });
  t.teardown(() => second.close());
  const startedAtMs = Date.now();
  for (let count = 0; count < 40; count += 1) {
    await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null });
  }
  await until(
    () => countUnpublished(pool),
    ({ nodes }) => nodes === 0,
  );
  const seconds = (Date.now() - startedAtMs) / 1_000;
  const revisions = await listRevisions(pool, nodeId);
  t.ok(revisions.length <= 3 + seconds, `${revisions.length} revisions in ${seconds} s`);
  t.equal(Object.keys((await served(nodeId)).clientMap).length, 40);
  for (const [index, { createdAt }] of revisions.entries()) {
    const newer = revisions[index - 1];
    if (newer !== undefined) t.ok(newer.createdAt.getTime() - createdAt.getTime() >= 999);
  }
});

t.test('reports count against revisions, and the newest 100 of each kind stay', async (t) => {
  const nodeId = await addServing();
  await publishNow(deps);
  await recordApplied(pool, nodeId, 1);
  await freedom(nodeId, 'warp');
  await publishNow(deps);
  const details = { exit: 23 };
  await reportNodeError(
    pool,
    nodeId,
    { message: 'boom', code: 'XRAY', details },
    { rollsBack: false },
  );
  await reportNodeError(pool, nodeId, { message: 'nul \u0000' }, { rollsBack: false });
  t.match(await listErrors(pool, nodeId), [
    { revision: 2, message: 'nul \uFFFD', code: null, details: null },
    { revision: 2, message: 'boom', code: 'XRAY', details, at: Date },
  ]);
  t.match(await listRevisions(pool, nodeId), [
    { revision: 2, applied: 0, errors: 2 },
    { revision: 1, applied: 1, errors: 0 },
  ]);
  for (let count = 0; count < reportsKept + 5; count += 1) {
    await reportNodeError(pool, nodeId, { message: `error ${count}` }, { rollsBack: false });
  }
  const kept = await listErrors(pool, nodeId);
  t.equal(kept.length, reportsKept);
  t.equal(kept[0]?.message, `error ${reportsKept + 4}`);
  t.match((await listRevisions(pool, nodeId))[1], { applied: 1 }, 'each kind has its own limit');
});

t.test('a rollback brings back the settings, and not the links', async (t) => {
  const nodeId = await addNode();
  await vless(nodeId, 443);
  const userId = await createUser(pool, { name: 'u' });
  const gone = await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null });
  await publishNow(deps);
  await t.rejects(rollBackNode(pool, nodeId), {
    code: 'INVALID_ARGUMENT',
    message: /has not applied any revision/,
  });
  await recordApplied(pool, nodeId, 1);
  await t.rejects(rollBackNode(pool, nodeId), { message: /applied its newest revision, 1/ });
  await t.rejects(rollBackNode(pool, nodeId, 7), {
    message: /does not keep revision 7 of node 1, or never issued it/,
  });
  await t.rejects(rollBackNode(pool, 99), { code: 'NOT_FOUND' });

  await vless(nodeId, 8443);
  await publishNow(deps);
  await reportNodeError(pool, nodeId, { message: 'xray does not start' }, { rollsBack: false });
  await pool.query("UPDATE subscriptions SET status = 'limited' WHERE id = $1", [
    gone.subscriptionId,
  ]);
  const later = await createSubscription(pool, {
    userId,
    trafficLimitBytes: null,
    expiresAt: null,
  });
  t.same(await rollBackNode(pool, nodeId), { nodeId, rolledBackTo: 1, leftOut: [] });
  t.same((await publishNow(deps)).published, [nodeId]);
  const ports = async () =>
    (await served(nodeId)).services.xray.inbounds.map((one: { port: number }) => one.port);
  t.same(await ports(), [443], 'the settings of revision 1');
  t.equal((await served(nodeId)).revision, 3, 'as a new revision, so that the node must sync');
  t.same(
    Object.keys((await served(nodeId)).clientMap).sort(),
    later.links.filter((link) => link.nodeProtocolId === 1).map((link) => link.uuid),
    'the limited subscription stays out, and the new one is in',
  );
  t.match(await show(nodeId), { rolledBackTo: 1 });
  t.match((await listRevisions(pool, nodeId))[0], {
    causes: [/^subscription|change/, 'rollback to 1'],
  });

  await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null });
  await publishNow(deps);
  t.same(await ports(), [443], 'a change of links does not end the rollback');
  await t.rejects(rollBackNode(pool, nodeId), { message: /only its clients have/ });
  await freedom(nodeId, 'direct');
  await publishNow(deps);
  t.same(await ports(), [443, 8443], 'the next change of settings does end it');
  t.match(await show(nodeId), { rolledBackTo: null });
});

t.test('pruning keeps the revisions that a rollback needs', async (t) => {
  const nodeId = await addServing();
  await publishNow(deps);
  await recordApplied(pool, nodeId, 1);
  for (let count = 0; count < revisionsKept + 3; count += 1) {
    await freedom(nodeId, `exit-${count}`);
    await publishNow(deps);
  }
  await pruneRevisions(pool);
  const kept = await listRevisions(pool, nodeId);
  t.equal(kept.length, revisionsKept + 1);
  t.equal(kept.at(-1)?.revision, 1);
  const { rows } = await pool.query('SELECT count(*)::integer AS count FROM node_settings');
  t.equal(rows[0].count, revisionsKept + 1);
  t.match(await rollBackNode(pool, nodeId), { rolledBackTo: 1 });
});

t.test('drift says how many revisions a node is behind, and since when', async (t) => {
  const nodeId = await addServing();
  await publishNow(deps);
  const drift = async () => (await listDrift(pool, options))[0];
  t.match(await drift(), {
    revision: 1,
    appliedRevision: null,
    reportedRevision: null,
    behindBy: null,
    behindSince: Date,
    syncStatus: 'pending',
  });
  await recordApplied(pool, nodeId, 1);
  const heartbeats = createHeartbeats({ pool, log, intervalMs: 60_000, nowMs: Date.now });
  heartbeats.seen(nodeId, undefined, 1);
  await heartbeats.close();
  t.match(await drift(), { reportedRevision: 1, behindBy: 0, behindSince: null });
  for (const tag of ['a', 'b']) {
    await freedom(nodeId, tag);
    await publishNow(deps);
  }
  const [, since] = (await listRevisions(pool, nodeId)).map((row) => row.createdAt);
  t.match(await drift(), { revision: 3, behindBy: 2, behindSince: since, syncStatus: 'outdated' });
});

t.test('a new address is a change if it is part of the configuration', async (t) => {
  const nodeId = await addNode();
  await addProtocol(pool, { nodeId, protocol: 'MTPROTO', port: 443, settings: {} });
  const userId = await createUser(pool, { name: 'u' });
  await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null });
  await publishNow(deps);
  const beat = async (ip: string) => {
    const heartbeats = createHeartbeats({ pool, log, intervalMs: 60_000, nowMs: Date.now });
    heartbeats.seen(nodeId, ip, undefined);
    await heartbeats.close();
    return publishNow(deps);
  };
  t.same((await beat('192.0.2.1')).published, [], 'it has a host name');
  await updateNode(pool, nodeId, { host: '' });
  t.same((await publishNow(deps)).published, [nodeId]);
  t.same((await beat('192.0.2.2')).published, [nodeId]);
  t.equal((await served(nodeId)).services.mtproto.inbounds[0].publicHost, '192.0.2.2');
  t.same((await beat('192.0.2.2')).published, []);
});
