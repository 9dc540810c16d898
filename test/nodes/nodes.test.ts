import fc from 'fast-check';
import pg from 'pg';
import t, { type Test } from 'tap';
import { createLogger } from '../../src/log.ts';
import { bumpNodes } from '../../src/nodes/bump.ts';
import { createNode, rekeyNode, revokeNode } from '../../src/nodes/change.ts';
import { listNodes, type NodeStateRow, nodeState, showNode } from '../../src/nodes/node-state.ts';
import { hashCode, newCode, registerNode } from '../../src/nodes/registration.ts';
import { migratePostgres } from '../../src/stores/migrate.ts';
import { createPool, inTransaction } from '../../src/stores/postgres.ts';
import { marksOf } from '../support/publish.ts';
import { freshStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const dto = { name: 'reported', host: 'n.example.net', ip: '198.51.100.7', region: '' };

const { databaseUrl } = await freshStores(t);
const pool = createPool(databaseUrl, { max: 4 });
t.teardown(() => pool.end());
await migratePostgres(pool, createLogger('silent'));

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
});

async function addNode(name = 'n'): Promise<number> {
  const node = { name, region: 'eu', host: '', ip: '' };
  return (await createNode(pool, node, options)).nodeId;
}

/** Hears node ids on core_nodes in their order, and `change` for each notification on core_changes. */
async function listen(t: Test) {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  t.teardown(() => client.end());
  const heard: (number | 'change')[] = [];
  client.on('notification', ({ channel, payload }) =>
    heard.push(channel === 'core_changes' ? 'change' : Number(payload)),
  );
  await client.query('LISTEN core_nodes; LISTEN core_changes');
  return {
    heard,
    /** Resolves to what it has heard. That contains everything committed before the call. */
    async drain(): Promise<(number | 'change')[]> {
      await client.query('SELECT 1');
      return heard.splice(0);
    },
  };
}

t.test('registration codes are random, and forgive how people type them', async (t) => {
  const codes = new Set(Array.from({ length: 1_000 }, newCode));
  t.equal(codes.size, 1_000, 'no two codes are equal');
  for (const code of codes) {
    if (!/^([0-9A-HJKMNP-TV-Z]{5}-){3}[0-9A-HJKMNP-TV-Z]{5}$/.test(code)) t.fail(code);
  }
  t.same(
    hashCode(' abcde-fghjk-mnpqr-stvw0\n'),
    hashCode('ABCDEFGHJKMNPQRSTVWO'),
    'case, hyphens and the letter O do not matter',
  );
  t.notSame(hashCode('ABCDE-FGHJK-MNPQR-STVW0'), hashCode('ABCDE-FGHJK-MNPQR-STVW1'));
});

t.test('the status of a node follows from its row', async (t) => {
  const row: NodeStateRow = {
    id: 1,
    name: 'n',
    host: 'h',
    ip: '192.0.2.1',
    region: 'eu',
    reported_name: null,
    reported_host: null,
    reported_region: null,
    has_key: true,
    revoked: false,
    last_seen_at: new Date(0),
    seconds_since_seen: 30,
    revision: 3,
    applied_revision: 3,
    reported_revision: 3,
    pinned_revision: null,
    faulty_at: null,
    faulty_revision: null,
    faulty_message: null,
    faulty_code: null,
    faulty_again_at: null,
    agent_version: null,
    xray_version: null,
    telemt_version: null,
    rendered_xray_version: null,
    xray_changes: null,
    xray_changed_at: null,
    cpu_percent: null,
    memory_bytes: null,
    uptime_seconds: null,
    unpublished_since: null,
    change_causes: [],
    publish_error: null,
    maintenance_at: null,
    maintenance_reason: null,
    sync_status: 'synced',
    error_message: null,
    error_code: null,
    error_details: null,
    error_at: null,
  };
  const stateOf = (change: Partial<NodeStateRow>) => {
    const { status, syncStatus } = nodeState({ ...row, ...change }, options);
    return `${status} ${syncStatus}`;
  };
  t.equal(stateOf({}), 'online synced');
  t.equal(stateOf({ seconds_since_seen: 30.1 }), 'stale synced');
  t.equal(stateOf({ seconds_since_seen: 90 }), 'stale synced');
  t.equal(stateOf({ seconds_since_seen: 90.1 }), 'offline synced');
  t.equal(stateOf({ seconds_since_seen: null, last_seen_at: null }), 'offline synced');
  t.equal(stateOf({ applied_revision: 2 }), 'outdated outdated');
  t.equal(stateOf({ applied_revision: 2, seconds_since_seen: 31 }), 'stale outdated');
  const maintained = { maintenance_at: new Date(2), maintenance_reason: 'disk' };
  t.equal(stateOf({ ...maintained, sync_status: 'failed' }), 'maintenance failed');
  t.equal(stateOf({ ...maintained, has_key: false }), 'pending synced');
  t.same(nodeState({ ...row, ...maintained }, options).maintenance, {
    since: new Date(2),
    reason: 'disk',
  });
  t.equal(stateOf({ applied_revision: null, sync_status: 'pending' }), 'online pending');
  t.equal(stateOf({ has_key: false }), 'pending synced');
  t.equal(stateOf({ sync_status: 'failed', error_message: 'x' }), 'error failed');
  t.equal(stateOf({ sync_status: 'failed', seconds_since_seen: 1e6 }), 'error failed');
  t.equal(stateOf({ revoked: true, has_key: false, sync_status: 'failed' }), 'revoked failed');
  t.equal(nodeState(row, options).lastError, null);
  const failed = { ...row, error_message: 'boom', error_code: 'E1', error_at: new Date(1) };
  t.same(nodeState(failed, options).lastError, {
    message: 'boom',
    code: 'E1',
    details: null,
    at: new Date(1),
  });
});

t.test('an operator creates, rekeys and revokes a node, which registers in between', async (t) => {
  const { drain } = await listen(t);
  const created = await createNode(
    pool,
    { name: 'berlin-1', region: 'eu', host: '', ip: '' },
    options,
  );
  const { nodeId } = created;
  t.match(await showNode(pool, nodeId, options), {
    nodeId,
    name: 'berlin-1',
    region: 'eu',
    status: 'pending',
    syncStatus: 'pending',
    revision: 1,
    appliedRevision: null,
    lastSeenAt: null,
    lastError: null,
  });
  const stored = await pool.query('SELECT * FROM registration_codes');
  t.notMatch(JSON.stringify(stored.rows), created.code, 'Postgres has only the hash of the code');

  await registerNode(pool, { code: created.code.toLowerCase(), ...dto });
  t.match(await showNode(pool, nodeId, options), {
    status: 'online',
    name: 'berlin-1',
    host: 'n.example.net',
    ip: '198.51.100.7',
    region: 'eu',
    reportedName: 'reported',
    reportedHost: 'n.example.net',
    reportedRegion: null,
  });
  t.equal(await marksOf(pool, nodeId), 1, 'its host may be part of its configuration');
  await drain();

  const rekeyed = await rekeyNode(pool, nodeId, options);
  t.not(rekeyed.code, created.code);
  const keyOf = await pool.query('SELECT auth_key_hash FROM nodes WHERE id = $1', [nodeId]);
  t.equal(keyOf.rows[0].auth_key_hash, null, 'the old key is gone');
  t.same(await drain(), [nodeId], 'every process hears of it');
  await t.rejects(registerNode(pool, { code: created.code, ...dto }), {
    code: 'REGISTRATION_REFUSED',
  });
  const again = await rekeyNode(pool, nodeId, options);
  await t.rejects(
    registerNode(pool, { code: rekeyed.code, ...dto }),
    { code: 'REGISTRATION_REFUSED' },
    'only the newest code works',
  );
  await registerNode(pool, { code: again.code, ...dto });
  await drain();

  const last = await rekeyNode(pool, nodeId, options);
  await revokeNode(pool, nodeId);
  await revokeNode(pool, nodeId);
  t.match(await listNodes(pool, options), [{ nodeId, status: 'revoked' }]);
  t.same(await drain(), [nodeId, nodeId, nodeId]);
  await t.rejects(registerNode(pool, { code: last.code, ...dto }), {
    code: 'REGISTRATION_REFUSED',
  });
  await t.rejects(rekeyNode(pool, nodeId, options), { code: 'INVALID_ARGUMENT' });
  const missing = { code: 'NOT_FOUND', message: 'There is no node 99' };
  await t.rejects(showNode(pool, 99, options), missing);
  await t.rejects(rekeyNode(pool, 99, options), missing);
  await t.rejects(revokeNode(pool, 99), missing);
});

t.test('a change marks its nodes with its cause when it commits', async (t) => {
  const { drain } = await listen(t);
  const first = await addNode();
  const second = await addNode();
  const bump = (ids: number[], cause = 'change') =>
    inTransaction(pool, (client) => bumpNodes(client, ids, cause));
  const causes = async () =>
    (await pool.query('SELECT change_causes AS causes FROM nodes ORDER BY id')).rows.map(
      (row) => row.causes,
    );

  t.same(
    [await marksOf(pool, first), await marksOf(pool, second)],
    [0, 0],
    'a new node has no mark',
  );
  await bump([]);
  t.same(await drain(), []);
  await bump([second, first, second], 'link 1');
  t.same([await marksOf(pool, first), await marksOf(pool, second)], [1, 1]);
  t.same(await drain(), ['change'], 'one notification for any number of nodes');
  await bump([first], 'link 1');
  await bump([first]);
  t.same(await causes(), [['link 1', 'change'], ['link 1']], 'each cause once');
  for (let count = 0; count < 20; count += 1) await bump([second], `link ${count}`);
  const [, many] = await causes();
  t.equal(many.length, 11, 'ten causes and one more');
  t.equal(many.at(-1), 'and more');
  t.equal((await showNode(pool, first, options)).revision, 1, 'a mark alone is no revision');

  await drain();
  const before = await marksOf(pool, first);
  const failing = inTransaction(pool, async (client) => {
    await bumpNodes(client, [first], 'failing');
    throw new Error('the change failed');
  });
  await t.rejects(failing, { message: 'the change failed' });
  t.equal(await marksOf(pool, first), before, 'a change that failed marks nothing');
  t.same(await drain(), [], 'nobody hears of it');
});

t.test('bumps of overlapping nodes do not deadlock', async (t) => {
  const ids: number[] = [];
  for (let count = 0; count < 8; count += 1) ids.push(await addNode());
  const sets = fc.sample(fc.shuffledSubarray(ids, { minLength: 2 }), { numRuns: 100, seed: 1 });
  await Promise.all(
    sets.map((set) => inTransaction(pool, (client) => bumpNodes(client, set, 'test'))),
  );
  const marks = await Promise.all(ids.map((id) => marksOf(pool, id)));
  for (const [index, id] of ids.entries()) {
    t.equal(marks[index], sets.filter((set) => set.includes(id)).length);
  }
});

t.test('an expired code does not work', async (t) => {
  const { code, nodeId } = await createNode(
    pool,
    { name: 'n', region: '', host: '', ip: '' },
    options,
  );
  await pool.query(
    "UPDATE registration_codes SET expires_at = now() - interval '1 second' WHERE node_id = $1",
    [nodeId],
  );
  await t.rejects(registerNode(pool, { code, ...dto }), { code: 'REGISTRATION_REFUSED' });
});
