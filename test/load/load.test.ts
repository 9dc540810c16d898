import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { FailpointName } from '../../src/failpoints.ts';
import { insertSegment } from '../../src/load/insert.ts';
import { runStream } from '../../src/load/load-stream.ts';
import { oldestSealed, readSealed } from '../../src/load/seal.ts';
import { addToBatch, openBatch, settleBatch } from '../../src/load/settle.ts';
import { packOutbounds, packSessions, packUsage, usageColumns } from '../../src/rows/pack.ts';
import { streamName } from '../../src/spool/streams.ts';
import { type ClickHouseClient, writePart } from '../../src/stores/clickhouse.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { until } from '../support/api.ts';
import { atMs, startSpool } from '../support/spool.ts';

/** A spool with one subscription, limited to 10,000 bytes. Usage is for it if a test names no other. */
async function startLoad(t: Test) {
  const spool = await startSpool(t);
  const { subscriptionId } = await createSubscription(spool.pool, {
    userId: spool.userId,
    trafficLimitBytes: 10_000,
    expiresAt: null,
  });
  const counters = async (): Promise<{ up: number; down: number; status: string }> =>
    (
      await spool.pool.query(
        'SELECT traffic_bytes_up AS up, traffic_bytes_down AS down, status FROM subscriptions',
      )
    ).rows[0];
  return {
    ...spool,
    subscriptionId,
    counters,
    node: { nodeId: spool.nodeId },
    appendUsage: (overrides: { recordedAt?: number; subscriptionId?: number | null }[]) =>
      spool.appendUsage(overrides.map((entry) => ({ subscriptionId, ...entry }))),
    names: {
      usage: streamName(spool.redisPrefix, 0, 'usage'),
      outbound: streamName(spool.redisPrefix, 0, 'outbound'),
      session: streamName(spool.redisPrefix, 0, 'session'),
    },
  };
}

t.test('usage becomes rows and counters, and leaves the spool', async (t) => {
  const load = await startLoad(t);
  await load.appendUsage([{}, { subscriptionId: null }, { subscriptionId: 999_999 }]);
  await load.appendUsage([{ recordedAt: Date.parse('2026-10-31T23:59:59Z') }]);
  t.same(await runStream(load.deps, load.names.usage), {
    outcome: 'drained',
    segments: 1,
    rows: 4,
  });
  t.same(
    await load.rows(
      'SELECT node_id, node_protocol_id, user_id, subscription_id, bytes_up, bytes_down, toString(recorded_at) AS at FROM usage ORDER BY at, subscription_id',
    ),
    [
      [load.subscriptionId, '2026-10-31 23:59:59'],
      [0, '2026-11-24 10:00:00'],
      [load.subscriptionId, '2026-11-24 10:00:00'],
      [999_999, '2026-11-24 10:00:00'],
    ].map(([subscription_id, at]) => ({
      node_id: load.node.nodeId,
      node_protocol_id: 5,
      user_id: load.userId,
      subscription_id,
      bytes_up: 10,
      bytes_down: 100,
      at,
    })),
  );
  t.same(await load.counters(), { up: 20, down: 200, status: 'active' });
  const streams = await load.pool.query('SELECT unknown_rows FROM streams WHERE stream = $1', [
    load.names.usage,
  ]);
  t.same(streams.rows, [{ unknown_rows: 1 }]);
  t.equal(await load.redis.xlen(load.names.usage), 0);
  const [appended, trimmed, rows] = await load.redis.mget(
    `${load.names.usage}:appended`,
    `${load.names.usage}:trimmed`,
    `${load.names.usage}:rows`,
  );
  t.equal(appended, '38', 'two blocks, of three rows and of one');
  t.equal(rows, '4');
  t.equal(trimmed, appended);
  t.same(await runStream(load.deps, load.names.usage), {
    outcome: 'drained',
    segments: 0,
    rows: 0,
  });
});

t.test('packed usage rows, which an older Core wrote, are read, too', async (t) => {
  const load = await startLoad(t);
  const { usage: stream } = load.names;
  const entry = { userId: load.userId, nodeProtocolId: 5, recordedAt: 1_795_514_400_000 };
  const row = (bytesUp: number) =>
    packUsage(load.node.nodeId, [{ ...entry, bytesUp, bytesDown: 1 }]);
  await load.redis.xadd(stream, '*', 'n', 2, 'c', 112, 'b', Buffer.concat([row(3), row(4)]));
  await load.appendUsage([{}]);
  t.match(await runStream(load.deps, stream), { outcome: 'drained', rows: 3 });
  const counted = 'SELECT bytes_up, bytes_down FROM usage ORDER BY bytes_up';
  t.same(await load.rows(counted), [
    { bytes_up: 3, bytes_down: 1 },
    { bytes_up: 4, bytes_down: 1 },
    { bytes_up: 10, bytes_down: 100 },
  ]);
});

t.test('a stream entry that Core did not write is not read as rows', async (t) => {
  const load = await startLoad(t);
  const { usage: stream } = load.names;
  await load.redis.xadd(stream, '*', 'n', 2, 'c', 5, 'u', Buffer.from([1, 1, 0, 0, 0]));
  await t.rejects(runStream(load.deps, stream), { code: 'SEGMENT_ROWS_LOST' });
  t.same(await load.rows('SELECT count() AS rows FROM usage'), [{ rows: 0 }]);
  t.equal(await load.redis.xlen(stream), 1, 'the stream entry stays where it is');
});

t.test('sessions become rows, and outbound usage becomes counters', async (t) => {
  const load = await startLoad(t);
  const event = {
    userId: 3,
    protocol: 'TROJAN',
    eventType: 'OFFLINE',
    occurredAt: atMs + 123,
  } as const;
  await load.append(
    'session',
    2,
    packSessions(load.node.nodeId, [
      event,
      { ...event, ipAddress: '2001:db8::1', occurredAt: atMs },
    ]),
  );
  await runStream(load.deps, load.names.session);
  t.same(
    await load.rows(
      'SELECT node_id, user_id, protocol, event_type, toString(occurred_at) AS at, ip_address FROM session_events ORDER BY at',
    ),
    [
      ['2026-11-24 10:00:00.000', '2001:db8::1'],
      ['2026-11-24 10:00:00.123', ''],
    ].map(([at, ip_address]) => ({
      node_id: load.node.nodeId,
      user_id: 3,
      protocol: 'TROJAN',
      event_type: 'OFFLINE',
      at,
      ip_address,
    })),
  );

  const item = { tag: 'direct', bytesUp: 1, bytesDown: 2 };
  await load.append(
    'outbound',
    3,
    packOutbounds(load.node.nodeId, [item, item, { ...item, tag: 'x' }]),
  );
  await load.append('outbound', 1, packOutbounds(999, [item]));
  await runStream(load.deps, load.names.outbound);
  const outbounds = await load.pool.query(
    'SELECT tag, traffic_bytes_up AS up, traffic_bytes_down AS down, configured FROM node_outbounds ORDER BY tag',
  );
  t.same(outbounds.rows, [
    { tag: 'direct', up: 2, down: 4, configured: false },
    { tag: 'x', up: 1, down: 2, configured: false },
  ]);
});

t.test('the next run finishes what a run left after any step, and only once', async (t) => {
  const load = await startLoad(t);
  const stream = load.names.usage;
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  const counted = async () =>
    (await load.rows<{ n: number }>('SELECT count() AS n FROM usage'))[0]?.n;

  await load.appendUsage([{}, { recordedAt: Date.parse('2026-09-01T00:00:00Z') }]);
  await load.seal(client, stream);
  await load.appendUsage([{}]);
  t.same(
    await runStream(load.deps, stream),
    { outcome: 'drained', segments: 2, rows: 3 },
    'after seal',
  );
  t.equal(await counted(), 3);

  await load.appendUsage([{}, { recordedAt: Date.parse('2026-09-01T00:00:00Z') }]);
  const inserted = await load.seal(client, stream);
  t.ok(inserted?.entries);
  if (inserted?.entries === undefined) return;
  await insertSegment({ ...load.deps, client }, inserted.segment, inserted.entries.blocks);
  t.equal(await counted(), 5);
  await runStream(load.deps, stream);
  t.equal(await counted(), 5, 'after insert: what is there is not inserted again');
  t.same(await load.counters(), { up: 50, down: 500, status: 'active' });

  await load.appendUsage([{}, { recordedAt: Date.parse('2026-09-01T00:00:00Z') }]);
  await load.seal(client, stream);
  const half = await oldestSealed(client, stream);
  t.ok(half);
  if (half === undefined) return;
  const entries = await readSealed({ ...load.deps, client }, half.segment);
  t.ok(entries);
  if (entries === undefined) return;
  await insertSegment({ ...load.deps, client }, half.segment, entries.blocks);
  await load.clickhouse.command({ query: 'ALTER TABLE usage DROP PARTITION 202609' });
  // That partition also held a row of each of the first two rounds.
  t.equal(await counted(), 4);
  await runStream(load.deps, stream);
  t.equal(await counted(), 5, 'after half an insert: only the missing month');
  t.same(await load.counters(), { up: 70, down: 700, status: 'active' });

  await load.appendUsage([{}]);
  const settled = await load.seal(client, stream);
  t.ok(settled?.entries);
  if (settled?.entries === undefined) return;
  const { segment, entries: read } = settled;
  const last = await insertSegment({ ...load.deps, client }, segment, read.blocks);
  if (last.outcome !== 'inserted') throw new Error('nothing was inserted');
  const batch = openBatch(segment);
  addToBatch(batch, segment, last.payloads);
  t.same(await settleBatch(client, batch), { outcome: 'settled' });
  t.same(await settleBatch(client, batch), { outcome: 'overtaken', segmentIds: [segment.id] });
  t.same(
    await load.counters(),
    { up: 80, down: 800, status: 'active' },
    'settled twice counts once',
  );
  t.equal(await load.redis.xlen(stream), 1);
  await runStream(load.deps, stream);
  t.equal(await load.redis.xlen(stream), 0, 'after settle: trimmed by the next run');
  const open = await load.pool.query(
    "SELECT count(*)::int AS n FROM segments WHERE state = 'sealed'",
  );
  t.same(open.rows, [{ n: 0 }]);
});

t.test('the next run settles the segments that a crash left, in order and once', async (t) => {
  const load = await startLoad(t);
  const stream = load.names.usage;
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  for (const insertedBefore of [true, false, true]) {
    await load.appendUsage([{}, { subscriptionId: 999_999 }]);
    const sealed = await load.seal(client, stream);
    if (sealed?.entries === undefined) throw new Error('nothing to seal');
    const { segment, entries } = sealed;
    const { clickhouse, buffers } = load.deps;
    if (insertedBefore)
      await insertSegment({ client, clickhouse, buffers }, segment, entries.blocks);
  }
  await load.appendUsage([{}]);
  // The batch is due once it has all bytes, so a slow machine does not split it.
  const groupBytesMax = Number(await load.redis.get(`${stream}:appended`));
  t.same(await runStream({ ...load.deps, groupMsMin: 600_000, groupBytesMax }, stream), {
    outcome: 'drained',
    segments: 4,
    rows: 7,
  });
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 7 }]);
  t.same(await load.counters(), { up: 40, down: 400, status: 'active' });
  const { rows } = await load.pool.query(
    "SELECT count(*) AS n, count(DISTINCT settled_at) AS at FROM segments WHERE state = 'settled'",
  );
  t.same(rows, [{ n: 4, at: 1 }], 'all four in one transaction');
  t.same((await load.pool.query('SELECT sum(unknown_rows)::int AS n FROM streams')).rows, [
    { n: 3 },
  ]);
  t.equal(await load.redis.xlen(stream), 0);
});

t.test('if a segment fails, those before it are settled', async (t) => {
  const load = await startLoad(t);
  const stream = load.names.usage;
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  for (let i = 0; i < 3; i += 1) {
    await load.appendUsage([{}]);
    const sealed = await load.seal(client, stream);
    if (i === 1) await load.redis.xdel(stream, sealed?.segment.lastId ?? '');
  }
  await t.rejects(runStream({ ...load.deps, groupMsMin: 60_000 }, stream), {
    code: 'SEGMENT_ROWS_LOST',
  });
  const { rows } = await load.pool.query('SELECT state, last_error FROM segments ORDER BY seq');
  t.match(rows, [
    { state: 'settled', last_error: null },
    { state: 'sealed', last_error: /holds 0 of them/ },
    { state: 'sealed', last_error: null },
  ]);
  t.same(await load.counters(), { up: 10, down: 100, status: 'active' });
  t.equal(await load.redis.xlen(stream), 1);
});

/** Makes ClickHouse log this token, with a row of this user that belongs to no segment. */
function takeToken(clickhouse: ClickHouseClient, token: string, userId: number): Promise<void> {
  const entry = { userId, nodeProtocolId: 1, bytesUp: 0, bytesDown: 0, recordedAt: atMs };
  return writePart(clickhouse, {
    ...{ table: 'usage', columns: usageColumns, token, format: 'RowBinary' },
    bytes: packUsage(1, [entry]),
  });
}

t.test('a retry finds the rows even if ClickHouse has forgotten their token', async (t) => {
  const load = await startLoad(t);
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  await load.clickhouse.command({
    query: 'ALTER TABLE usage MODIFY SETTING non_replicated_deduplication_window = 2',
  });
  await load.appendUsage([{}, {}]);
  const sealed = await load.seal(client, load.names.usage);
  t.ok(sealed?.entries);
  if (sealed?.entries === undefined) return;
  const { segment, entries } = sealed;
  await insertSegment({ ...load.deps, client }, segment, entries.blocks);
  for (let other = 1; other <= 4; other += 1) {
    await takeToken(load.clickhouse, `other-${other}`, other);
  }
  await runStream(load.deps, load.names.usage);
  t.same(await load.rows(`SELECT count() AS n FROM usage WHERE segment = ${segment.id}`), [
    { n: 2 },
  ]);
  t.same(await load.counters(), { up: 20, down: 200, status: 'active' });
});

t.test('if ClickHouse logged a token without its rows, no row is lost', async (t) => {
  const load = await startLoad(t);
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  await load.appendUsage([{}, {}]);
  const sealed = await load.seal(client, load.names.usage);
  t.ok(sealed);
  if (sealed === undefined) return;
  // A crash between the log and the data leaves the token taken and the rows missing.
  await takeToken(load.clickhouse, `segment-${sealed.segment.id}-202611-0`, 1);
  await load.pool.query('UPDATE segments SET attempts = 1');
  await runStream(load.deps, load.names.usage);
  t.same(await load.rows(`SELECT count() AS n FROM usage WHERE segment = ${sealed.segment.id}`), [
    { n: 2 },
  ]);
});

t.test('a segment waits while ClickHouse takes its rows and does not show them', async (t) => {
  const load = await startLoad(t);
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  await load.appendUsage([{}, {}]);
  const sealed = await load.seal(client, load.names.usage);
  const id = sealed?.segment.id;
  for (let attempt = 0; attempt < 4; attempt += 1) {
    await takeToken(load.clickhouse, `segment-${id}-202611-${attempt}`, attempt + 1);
  }
  await load.pool.query('UPDATE segments SET attempts = 1');
  await t.rejects(runStream(load.deps, load.names.usage), {
    code: 'SEGMENT_NOT_SHOWN',
    status: 503,
    retryable: true,
    message: new RegExp(`took partition 202611 of segment ${id} but does not show its rows`),
  });
  const { rows } = await load.pool.query('SELECT state, attempts, last_error FROM segments');
  t.match(rows, [{ state: 'sealed', attempts: 2, last_error: /does not show its rows/ }]);
  t.same(await load.counters(), { up: 0, down: 0, status: 'active' });

  // Newer inserts push the tokens out of ClickHouse's log; then the same tokens store the rows.
  await load.clickhouse.command({
    query: 'ALTER TABLE usage MODIFY SETTING non_replicated_deduplication_window = 1',
  });
  await takeToken(load.clickhouse, 'other', 9);
  t.match(await runStream(load.deps, load.names.usage), { outcome: 'drained', segments: 1 });
  t.same(await load.counters(), { up: 20, down: 200, status: 'active' });
});

t.test('a sealed segment whose stream entries are gone is reported and not skipped', async (t) => {
  const load = await startLoad(t);
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  await load.appendUsage([{}]);
  await load.seal(client, load.names.usage);
  await load.redis.del(load.names.usage);
  await t.rejects(runStream(load.deps, load.names.usage), { code: 'SEGMENT_ROWS_LOST' });
  const { rows } = await load.pool.query('SELECT state, last_error FROM segments');
  t.match(rows, [{ state: 'sealed', last_error: /holds 0 of them/ }]);
});

t.test('a run leaves alone a stream that another worker holds', async (t) => {
  const load = await startLoad(t);
  const other = await load.pool.connect();
  t.teardown(() => other.release());
  await load.appendUsage([{}]);
  const key = [load.names.usage];
  await other.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', key);
  t.same(await runStream(load.deps, load.names.usage), { outcome: 'locked' });
  await other.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', key);
  const runs = await Promise.all([1, 2, 3].map(() => runStream(load.deps, load.names.usage)));
  t.ok(runs.some((run) => run.outcome === 'drained' && run.rows === 1));
  t.same(await load.counters(), { up: 10, down: 100, status: 'active' });
});

t.test('a settle that reaches a limit marks the subscription as limited', async (t) => {
  const load = await startLoad(t);
  await load.appendUsage(Array.from({ length: 100 }, () => ({})));
  await runStream(load.deps, load.names.usage);
  t.same(await load.counters(), { up: 1_000, down: 10_000, status: 'limited' });
});

t.test('a segment has a bounded number of rows', async (t) => {
  const load = await startLoad(t);
  for (let i = 0; i < 5; i += 1) await load.appendUsage([{}, { recordedAt: atMs + i * 1_000 }]);
  const run = await runStream({ ...load.deps, segmentRowsMax: 4 }, load.names.usage);
  t.same(run, { outcome: 'drained', segments: 3, rows: 10 });
});

t.test('a run that is told to end settles what it has', async (t) => {
  const load = await startLoad(t);
  for (let i = 0; i < 4; i += 1) await load.appendUsage([{}, {}]);
  const deps = { ...load.deps, segmentRowsMax: 2, groupMsMin: 60_000 };
  const goesOn = (segments: number): boolean => segments < 3;
  t.same(await runStream({ ...deps, goesOn }, load.names.usage), {
    outcome: 'paused',
    segments: 3,
    rows: 6,
  });
  t.same(await load.counters(), { up: 60, down: 600, status: 'active' });
  t.match(await runStream({ ...deps, groupMsMin: 0 }, load.names.usage), { segments: 1, rows: 2 });
  t.same(await load.counters(), { up: 80, down: 800, status: 'active' });
});

t.test('the run goes on inserting while a batch is settled', async (t) => {
  const load = await startLoad(t);
  for (let i = 0; i < 3; i += 1) await load.appendUsage([{}, {}]);
  let inserted = 0;
  let release: () => void = () => undefined;
  const secondInserted = new Promise<void>((resolve) => {
    release = resolve;
  });
  let settling = 0;
  const failpoint = async (name: FailpointName): Promise<void> => {
    if (name === 'insert:after') {
      inserted += 1;
      if (inserted === 2) release();
    }
    if (name !== 'settle:before') return;
    settling += 1;
    t.equal(settling, 1, 'one batch at a time');
    // If the run waited for the first batch here, this would never resolve.
    await secondInserted;
    settling -= 1;
  };
  const run = await runStream({ ...load.deps, segmentRowsMax: 2, failpoint }, load.names.usage);
  t.same(run, { outcome: 'drained', segments: 3, rows: 6 });
  t.same(await load.counters(), { up: 60, down: 600, status: 'active' });
  t.equal(await load.redis.xlen(load.names.usage), 0);
});

t.test('a settle that fails ends the run, and the next run makes up for it', async (t) => {
  const load = await startLoad(t);
  for (let i = 0; i < 3; i += 1) await load.appendUsage([{}, {}]);
  let fails = true;
  const failpoint = (name: FailpointName): void => {
    if (name !== 'settle:before-commit' || !fails) return;
    fails = false;
    throw new Error('the commit did not come through');
  };
  const deps = { ...load.deps, segmentRowsMax: 2 };
  await t.rejects(runStream({ ...deps, failpoint }, load.names.usage), {
    message: 'the commit did not come through',
  });
  const { rows } = await load.pool.query('SELECT state, last_error FROM segments ORDER BY seq');
  t.match(rows[0], { state: 'sealed', last_error: 'the commit did not come through' });
  await runStream(deps, load.names.usage);
  t.same(await load.counters(), { up: 60, down: 600, status: 'active' });
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 6 }]);
});

t.test('what comes during an insert is part of the segment that is read ahead', async (t) => {
  const load = await startLoad(t);
  await load.appendUsage([{}, {}, {}, {}]);
  await load.appendUsage([{}, {}]);
  let inserts = 0;
  const failpoint = async (name: FailpointName): Promise<void> => {
    if (name !== 'insert:before') return;
    inserts += 1;
    if (inserts === 1) await load.appendUsage([{}, {}]);
  };
  const run = await runStream({ ...load.deps, segmentRowsMax: 4, failpoint }, load.names.usage);
  t.same(run, { outcome: 'drained', segments: 2, rows: 8 });
  t.same(await load.counters(), { up: 80, down: 800, status: 'active' });
});

t.test('a run that stands still loses its stream, and one that takes long does not', async (t) => {
  const load = await startSpool(t);
  const subscriptionId = await load.subscribe();
  await load.appendUsage([{ subscriptionId }, { subscriptionId }]);
  let goOn: () => void = () => undefined;
  const stopped = new Promise<void>((resume) => {
    goOn = resume;
  });
  const silentMsMax = 1_500;
  const first = load.run('usage', {
    silentMsMax,
    failpoint: (name) => (name === 'insert:before' ? stopped : undefined),
  });
  const failed = t.rejects(first, 'the first run can do nothing once it goes on');
  // The second run is another worker's. Its insert takes three times as long as a run may be silent.
  const slow = new Proxy(load.clickhouse, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (key !== 'exec') return typeof value === 'function' ? value.bind(target) : value;
      return async (params: Parameters<typeof target.exec>[0]) => {
        await delay(3 * silentMsMax);
        return target.exec(params);
      };
    },
  });
  const second = await until(
    () => load.run('usage', { silentMsMax, clickhouse: slow }),
    ({ outcome }) => outcome !== 'locked',
  );
  t.match(second, { outcome: 'drained', segments: 1, rows: 2 });
  goOn();
  await failed;
  t.match(await load.run('usage'), { outcome: 'drained', segments: 0 });
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 2 }]);
  t.match(await load.counters(), [{ up: 20, down: 200 }]);
});
