import fc from 'fast-check';
import t from 'tap';
import { createNode, revokeNode } from '../../src/nodes/change.ts';
import { showNode } from '../../src/nodes/node-state.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { inTransaction } from '../../src/stores/postgres.ts';
import { addTraffic } from '../../src/subscriptions/add-traffic.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { expireDue } from '../../src/subscriptions/due.ts';
import { listSubscriptions, showSubscription } from '../../src/subscriptions/show.ts';
import { createUser, listUsers } from '../../src/subscriptions/users.ts';
import { publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const bigintMax = '9223372036854775807';

// A hundred transactions wait for four connections, on a machine that may be slow.
const { pool, redis, prefix } = await openStores(t, { max: 4, connectTimeoutMs: 120_000 });

let userId = 0;
t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
  userId = await createUser(pool, { name: 'alice' });
});

/** A node that serves VLESS. */
async function addServingNode(): Promise<{ nodeId: number; nodeProtocolId: number }> {
  const node = { name: 'n', region: 'eu', host: '', ip: '' };
  const { nodeId } = await createNode(pool, node, options);
  const vless = { nodeId, protocol: 'VLESS', port: 443, settings: {} } as const;
  return { nodeId, ...(await addProtocol(pool, vless)) };
}

/** Publishes what waits, and returns the node's revision. */
async function revisionOf(nodeId: number): Promise<number> {
  await publishNow({ pool, redis, prefix });
  return (await showNode(pool, nodeId, options)).revision;
}

const unlimited = { trafficLimitBytes: null, expiresAt: null };

t.test('users', async (t) => {
  await createUser(pool, { name: 'alice' });
  t.match(await listUsers(pool, { afterId: 0, rowsMax: 10 }), [
    { userId: 1, name: 'alice' },
    { userId: 2, name: 'alice' },
  ]);
  t.match(await listUsers(pool, { afterId: 1, rowsMax: 10 }), [{ userId: 2 }]);
  t.equal((await listUsers(pool, { afterId: 0, rowsMax: 1 })).length, 1);
});

t.test('create, show, list', async (t) => {
  t.same(await createSubscription(pool, { userId, ...unlimited }), {
    subscriptionId: 1,
    links: [],
  });
  const serving = [await addServingNode(), await addServingNode()];
  const revoked = await addServingNode();
  for (const { nodeId } of [...serving, revoked]) t.equal(await revisionOf(nodeId), 1);
  await revokeNode(pool, revoked.nodeId);
  const expiresAt = new Date('2030-01-31T00:00:00Z');
  const created = await createSubscription(pool, {
    userId,
    trafficLimitBytes: 10_000_000_000,
    expiresAt,
  });
  t.same(
    created.links.map((link) => link.nodeProtocolId),
    serving.map((node) => node.nodeProtocolId),
    'a link for every protocol of every node that is not revoked',
  );
  t.equal(new Set(created.links.map((link) => link.uuid)).size, 2);
  for (const { nodeId } of serving) t.equal(await revisionOf(nodeId), 2);
  t.equal(await revisionOf(revoked.nodeId), 1);
  const shown = await showSubscription(pool, created.subscriptionId);
  t.same(shown, {
    subscriptionId: created.subscriptionId,
    userId,
    status: 'active',
    trafficBytesUp: 0,
    trafficBytesDown: 0,
    usedBytes: 0,
    trafficLimitBytes: 10_000_000_000,
    expiresAt,
    resetPeriod: 'none',
    anchorAt: shown.anchorAt,
    nextResetAt: null,
    groups: ['default'],
    hasGivenCredential: false,
    durationSeconds: null,
    externalId: null,
  });
  t.match(await showSubscription(pool, 1), unlimited);
  t.same((await listSubscriptions(pool, { afterId: 1, rowsMax: 10 })).at(0), shown);
  t.same(await listSubscriptions(pool, { userId: 99, afterId: 0, rowsMax: 10 }), []);
  await t.rejects(createSubscription(pool, { userId: 99, ...unlimited }), {
    code: 'NOT_FOUND',
    message: 'There is no user 99',
  });
  await t.rejects(showSubscription(pool, 99), { code: 'NOT_FOUND' });
});

t.test('concurrently added protocols and subscriptions are linked', async (t) => {
  const { nodeId } = await addServingNode();
  await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      index % 2 === 0
        ? createSubscription(pool, { userId, ...unlimited })
        : addProtocol(pool, { nodeId, protocol: 'TROJAN', port: 1_000 + index, settings: {} }),
    ),
  );
  const { rows } = await pool.query<{ missing: number }>(
    `SELECT count(*)::integer AS missing FROM subscriptions s CROSS JOIN node_protocols p
     WHERE NOT EXISTS (SELECT 1 FROM subscription_groups sg JOIN protocol_groups pg USING (group_id)
       WHERE sg.subscription_id = s.id AND pg.node_protocol_id = p.id)`,
  );
  t.equal(rows[0]?.missing, 0);
});

t.test('expiry', async (t) => {
  const { nodeId } = await addServingNode();
  const make = async (expiresAt: Date | null, status: string): Promise<number> => {
    const { subscriptionId } = await createSubscription(pool, {
      userId,
      trafficLimitBytes: null,
      expiresAt,
    });
    await pool.query(
      "UPDATE subscriptions SET status = $2, disabled = $2 = 'disabled' WHERE id = $1",
      [subscriptionId, status],
    );
    return subscriptionId;
  };
  const past = new Date(Date.now() - 60_000);
  const soon = new Date(Date.now() + 600_000);
  const due = [await make(soon, 'active'), await make(soon, 'limited')];
  const disabled = await make(past, 'disabled');
  const later = await make(new Date(Date.now() + 600_000), 'active');
  const never = await make(null, 'active');
  const before = await revisionOf(nodeId);
  await pool.query('UPDATE subscriptions SET expires_at = $2 WHERE id = ANY ($1)', [due, past]);
  t.same((await expireDue(pool)).sort(), due);
  t.equal(await revisionOf(nodeId), before + 1, 'one revision for all of them');
  for (const id of due) t.equal((await showSubscription(pool, id)).status, 'expired');
  t.equal((await showSubscription(pool, disabled)).status, 'disabled');
  for (const id of [later, never]) t.equal((await showSubscription(pool, id)).status, 'active');
  t.same(await expireDue(pool), [], 'once');
});

t.test('counters', async (t) => {
  const { nodeId } = await addServingNode();
  const create = async (trafficLimitBytes: number | null) =>
    (await createSubscription(pool, { userId, trafficLimitBytes, expiresAt: null })).subscriptionId;
  const free = await create(null);
  const limited = await create(100);
  const addSums = (sums: [id: number, up: bigint, down: bigint][]) =>
    inTransaction(pool, (client) =>
      addTraffic(client, {
        subscriptionIds: BigUint64Array.from(sums, ([id]) => BigInt(id)),
        bytesUp: BigUint64Array.from(sums, ([, up]) => up),
        bytesDown: BigUint64Array.from(sums, ([, , down]) => down),
        rows: BigUint64Array.from(sums, () => 1n),
      }),
    );

  const before = await revisionOf(nodeId);
  t.same(await addSums([]), { knownRows: 0, limited: [] });
  const first = await addSums([
    [free, 5n, 7n],
    [limited, 50n, 49n],
    [1_000_000, 1n, 1n],
  ]);
  t.same(first, { knownRows: 2, limited: [] }, 'an unknown subscription is no fault');
  t.equal(await revisionOf(nodeId), before, 'traffic alone changes no configuration');
  t.same(
    (await addSums([[limited, 1n, 0n]])).limited,
    [limited],
    'reaching the limit exactly limits',
  );
  t.equal(await revisionOf(nodeId), before + 1);
  t.match(await showSubscription(pool, limited), {
    status: 'limited',
    trafficBytesUp: 51,
    trafficBytesDown: 49,
  });
  t.same((await addSums([[limited, 1n, 0n]])).limited, [], 'a limit is crossed once');
  t.match(await showSubscription(pool, limited), { status: 'limited', trafficBytesUp: 52 });
  t.match(await showSubscription(pool, free), { status: 'active', trafficBytesDown: 7 });

  const huge = 2n ** 64n - 1n;
  await addSums([[free, huge, 2n ** 62n]]);
  await addSums([[free, huge, 2n ** 62n]]);
  const { rows } = await pool.query(
    'SELECT traffic_bytes_up::text AS up, traffic_bytes_down::text AS down FROM subscriptions WHERE id = $1',
    [free],
  );
  t.same(
    rows[0],
    { up: bigintMax, down: bigintMax },
    'a counter stops at its maximum instead of failing',
  );

  await pool.query(
    "UPDATE subscriptions SET status = 'disabled', disabled = true, traffic_bytes_up = 0",
  );
  t.same(
    (await addSums([[limited, 1_000n, 0n]])).limited,
    [],
    'only an active subscription becomes limited',
  );
  t.equal((await showSubscription(pool, limited)).status, 'disabled');
});

t.test('concurrently settled segments add up', async (t) => {
  const ids: number[] = [];
  for (let count = 0; count < 10; count += 1) {
    ids.push((await createSubscription(pool, { userId, ...unlimited })).subscriptionId);
  }
  const segment = fc.shuffledSubarray(ids, { minLength: 1 });
  const segments = fc.sample(segment, { numRuns: 100, seed: 2 });
  await Promise.all(
    segments.map((subscriptionIds) =>
      inTransaction(pool, (client) =>
        addTraffic(client, {
          subscriptionIds: BigUint64Array.from(subscriptionIds, BigInt),
          bytesUp: BigUint64Array.from(subscriptionIds, () => 1n),
          bytesDown: BigUint64Array.from(subscriptionIds, () => 2n),
          rows: BigUint64Array.from(subscriptionIds, () => 1n),
        }),
      ),
    ),
  );
  for (const id of ids) {
    const times = segments.filter((given) => given.includes(id)).length;
    t.match(await showSubscription(pool, id), {
      trafficBytesUp: times,
      trafficBytesDown: times * 2,
    });
  }
});
