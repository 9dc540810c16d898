import { once } from 'node:events';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import t from 'tap';
import { createLogger } from '../../src/log.ts';
import { createNode, deleteNode } from '../../src/nodes/change.ts';
import { createHeartbeats } from '../../src/nodes/heartbeat.ts';
import { showNode } from '../../src/nodes/node-state.ts';
import { createPool, inTransaction } from '../../src/stores/postgres.ts';
import { until } from '../support/api.ts';
import { openStores } from '../support/stores.ts';

const { databaseUrl, pool } = await openStores(t, { max: 4 });

async function addNodes(count: number): Promise<number[]> {
  const nodes: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const node = { name: 'n', region: '', host: 'h', ip: '' };
    nodes.push((await createNode(pool, node, { registrationSeconds: 60 })).nodeId);
  }
  return nodes;
}

async function stored(nodeIds: readonly number[]) {
  const { rows } = await pool.query(
    `SELECT id, ip, heartbeats.last_seen_at AS at, reported_revision AS revision
     FROM nodes LEFT JOIN heartbeats ON node_id = id
     WHERE id = ANY ($1) ORDER BY id`,
    [nodeIds],
  );
  return rows;
}

t.test('only the newest heartbeat of a node is written, with the last address', async (t) => {
  const nodeIds = await addNodes(3);
  const [first = 0, second = 0, third = 0] = nodeIds;
  const startMs = Date.parse('2026-11-29T12:00:00Z');
  let nowMs = startMs;
  const heartbeats = createHeartbeats({
    pool,
    log: createLogger('silent'),
    intervalMs: 60_000,
    nowMs: () => nowMs,
  });
  heartbeats.seen(third, '192.0.2.1', 1);
  heartbeats.seen(third, '192.0.2.3', 2);
  // More than the list may hold, so that it drops all but the newest on the way.
  for (let count = 0; count < 60_000; count += 1) {
    nowMs += 1;
    heartbeats.seen(count % 2 === 0 ? first : second, undefined, count);
  }
  nowMs += 1;
  heartbeats.seen(third, undefined, undefined);
  await heartbeats.close();
  t.same(await stored(nodeIds), [
    { id: first, ip: '', at: new Date(startMs + 59_999), revision: 59_998 },
    { id: second, ip: '', at: new Date(startMs + 60_000), revision: 59_999 },
    { id: third, ip: '192.0.2.3', at: new Date(startMs + 60_001), revision: null },
  ]);
  heartbeats.seen(first, '192.0.2.9', 1);
  await heartbeats.close();
  t.match(
    (await stored([first]))[0],
    { ip: '', revision: 59_998 },
    'a heartbeat after close is dropped',
  );
});

t.test('after a failure, the next write takes the newest heartbeats', async (t) => {
  const nodeIds = await addNodes(2);
  const [first = 0, second = 0] = nodeIds;
  let nowMs = Date.parse('2026-11-29T12:00:00Z');
  const warned = new Writable({
    write(line, _encoding, done) {
      this.emit('line', String(line));
      done();
    },
  });
  const own = createPool(databaseUrl, { max: 1 });
  t.teardown(() => own.end());
  const heartbeats = createHeartbeats({
    pool: own,
    log: pino({ level: 'warn' }, warned),
    intervalMs: 10,
    nowMs: () => nowMs,
  });
  await inTransaction(pool, async (client) => {
    await client.query('LOCK TABLE heartbeats IN ACCESS EXCLUSIVE MODE');
    heartbeats.seen(first, '192.0.2.1', 1);
    heartbeats.seen(second, undefined, 1);
    const failed = once(warned, 'line');
    await until(
      async () =>
        (
          await client.query(
            `SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'heartbeats'::regclass`,
          )
        ).rowCount,
      (count) => count === 1,
    );
    nowMs += 1_000;
    heartbeats.seen(first, undefined, 2);
    await client.query(
      `SELECT pg_terminate_backend(pid) FROM pg_locks
       WHERE NOT granted AND relation = 'heartbeats'::regclass`,
    );
    t.match(JSON.parse(String((await failed)[0])), { nodes: 2, err: { code: '57P01' } });
  });
  await heartbeats.close();
  t.same(await stored(nodeIds), [
    { id: first, ip: '192.0.2.1', at: new Date(nowMs), revision: 2 },
    { id: second, ip: '', at: new Date(nowMs - 1_000), revision: 1 },
  ]);
});

t.test(
  'a batch of heartbeats may contain first ones, later ones and those of deleted nodes',
  async (t) => {
    const [known = 0, fresh = 0, gone = 0] = await addNodes(3);
    let nowMs = Date.parse('2026-11-28T12:00:00Z');
    const beat = async (nodeIds: number[], revision: number | undefined) => {
      const heartbeats = createHeartbeats({
        pool,
        log: createLogger('silent'),
        intervalMs: 60_000,
        nowMs: () => nowMs,
      });
      for (const nodeId of nodeIds) heartbeats.seen(nodeId, undefined, revision);
      await heartbeats.close();
      const { rows } = await pool.query(
        `SELECT node_id AS id, last_seen_at AS at, reported_revision AS revision FROM heartbeats
       WHERE node_id = ANY ($1) ORDER BY node_id`,
        [[known, fresh, gone]],
      );
      return rows;
    };
    const first = new Date(nowMs);
    t.same(await beat([known], undefined), [{ id: known, at: first, revision: null }]);
    await deleteNode(pool, gone);
    nowMs += 10_000;
    const later = new Date(nowMs);
    t.same(await beat([gone, fresh, known], 4), [
      { id: known, at: later, revision: 4 },
      { id: fresh, at: later, revision: 4 },
    ]);
    nowMs -= 5_000;
    t.same(
      (await beat([known], 5))[0],
      { id: known, at: later, revision: 5 },
      'lastSeenAt never goes back',
    );
    t.match(await showNode(pool, known, { staleSeconds: 30, offlineSeconds: 90 }), {
      lastSeenAt: later,
      reportedRevision: 5,
    });
  },
);
