import t from 'tap';
import { reconcile } from '../../src/audit/reconcile.ts';
import { lastAudit, runAudit } from '../../src/audit/run-audit.ts';
import { atMs, startSpool } from '../support/spool.ts';

type Load = Awaited<ReturnType<typeof startSpool>>;

const signal = new AbortController().signal;

const pruneAfterAudit = ({ pool, clickhouse, log }: Load, segmentsKeptDays: number) =>
  runAudit({ pool, clickhouse, log, signal, segmentsKeptDays });

/** Makes a segment look as if it was settled this many days ago. */
const age = (load: Load, id: number, days: number) =>
  load.pool.query(
    'UPDATE segments SET settled_at = now() - make_interval(days => $2) WHERE id = $1',
    [id, days],
  );

async function segmentIds(load: Load): Promise<number[]> {
  const { rows } = await load.pool.query<{ id: number }>('SELECT id FROM segments ORDER BY id');
  return rows.map((row) => row.id);
}

/** Loads one segment for each list of the subscriptions that its rows name; returns their ids. */
async function loadUsage(load: Load, ...segments: number[][]): Promise<number[]> {
  const before = (await segmentIds(load)).length;
  for (const subscriptionIds of segments) {
    await load.appendUsage(subscriptionIds.map((subscriptionId) => ({ subscriptionId })));
    await load.run('usage');
  }
  return (await segmentIds(load)).slice(before);
}

const prunings = async (load: Load) =>
  (
    await load.pool.query(
      `SELECT up_to_id AS "upToId", segments, usage_rows AS "usageRows",
         session_rows AS "sessionRows" FROM segment_prunings ORDER BY up_to_id`,
    )
  ).rows;

t.test('a clean audit deletes old segments, and their rows are still compared', async (t) => {
  const load = await startSpool(t, { CORE_SPOOL_SHARDS: '2' });
  const subscriptionId = await load.subscribe();
  const [first = 0, second = 0, third = 0] = await loadUsage(
    load,
    [subscriptionId],
    [subscriptionId, subscriptionId],
    [subscriptionId],
  );
  const session = {
    userId: 1,
    protocol: 'VLESS',
    eventType: 'ONLINE',
    occurredAt: atMs,
  } as const;
  for (let post = 0; post < 2; post += 1) {
    await load.appendSessions([session, session, session]);
    await load.run('session');
  }
  await load.appendUsage([{ subscriptionId }], 1);
  await load.run('usage', {}, 1);
  const all = await segmentIds(load);
  const [, , , oldSession = 0, lastSession = 0, otherShard = 0] = all;
  for (const id of [first, second, oldSession, lastSession, otherShard]) await age(load, id, 100);

  // The third segment is young, so nothing behind it may go.
  await pruneAfterAudit(load, 0);
  await pruneAfterAudit(load, 101);
  t.same(await segmentIds(load), all, 'nothing is old enough, or everything is kept for ever');
  await pruneAfterAudit(load, 90);
  t.same(await segmentIds(load), [third, oldSession, lastSession, otherShard]);
  t.same(await prunings(load), [{ upToId: second, segments: 2, usageRows: 3, sessionRows: 0 }]);

  await age(load, third, 100);
  await pruneAfterAudit(load, 90);
  t.same(await segmentIds(load), [third, lastSession, otherShard], 'the last of each stream stays');
  t.match(await prunings(load), [{}, { segments: 1, usageRows: 0, sessionRows: 3 }]);
  const clean = await pruneAfterAudit(load, 90);
  t.match(clean, { segments: 3, prunedSegments: 3, subscriptions: 1, differences: 0 });
  t.equal((await prunings(load)).length, 2, 'nothing more to delete');

  // More is loaded, and a stream goes on where it was.
  const [fourth = 0] = await loadUsage(load, [subscriptionId]);
  t.ok(fourth > otherShard);
  t.match(await pruneAfterAudit(load, 90), { segments: 4, differences: 0 });

  await load.command(
    `ALTER TABLE usage DELETE WHERE segment = ${first} SETTINGS mutations_sync = 2`,
  );
  await load.command(
    `INSERT INTO session_events SELECT * FROM session_events WHERE segment = ${oldSession} LIMIT 1`,
  );
  await load.command(`INSERT INTO usage SELECT * FROM usage WHERE segment = ${otherShard}`);
  const found = await reconcile(load, { since: null, signal });
  const upToId = (await prunings(load)).at(-1)?.upToId;
  t.match(
    found.details.filter(({ what }) => what !== 'subscription'),
    [
      { what: 'segment', segmentId: otherShard, expectedRows: 1, foundRows: 2 },
      { what: 'pruned-segments', upToId, table: 'usage', expectedRows: 3, foundRows: 2 },
      { what: 'pruned-segments', upToId, table: 'session_events', expectedRows: 3, foundRows: 4 },
    ],
  );
  t.match(await reconcile(load, { since: new Date(0), signal }), { prunedSegments: null });
});

t.test('an audit that found a difference deletes nothing', async (t) => {
  const load = await startSpool(t);
  const subscriptionId = await load.subscribe();
  const ids = await loadUsage(load, [subscriptionId], [subscriptionId], [subscriptionId]);
  for (const id of ids) await age(load, id, 100);
  await load.pool.query('UPDATE subscriptions SET traffic_bytes_up = traffic_bytes_up + 1');
  await pruneAfterAudit(load, 90);
  t.match(await lastAudit(load.pool), { differences: 1 });
  t.same(await segmentIds(load), ids);
});

t.test('nothing behind an unsettled segment goes, and no segment with rejected rows', async (t) => {
  const load = await startSpool(t);
  await load.command('ALTER TABLE usage ADD CONSTRAINT c CHECK user_id != 666');
  await load.appendUsage([{ userId: 666 }, {}]);
  await load.run('usage', { poisonAttempts: 1 });
  const [, second = 0, third = 0, fourth = 0] = [0, ...(await loadUsage(load, [1], [1], [1]))];
  const all = await segmentIds(load);
  const [rejected = 0] = all;
  for (const id of all) await age(load, id, 100);
  await load.pool.query("UPDATE segments SET state = 'sealed' WHERE id = $1", [third]);
  await pruneAfterAudit(load, 90);
  t.same(await segmentIds(load), [rejected, third, fourth], 'only what comes before it');
  t.match(await prunings(load), [{ upToId: second, segments: 1, usageRows: 1 }]);
  await load.pool.query("UPDATE segments SET state = 'settled' WHERE id = $1", [third]);
  await pruneAfterAudit(load, 90);
  t.same(await segmentIds(load), [rejected, fourth]);
  t.match(await reconcile(load, { since: null, signal }), { segments: 2, differences: 0 });
});

t.test('rows that are older than their subscription are still recognised as such', async (t) => {
  const load = await startSpool(t);
  const a = await load.subscribe();
  const [late, between, newest] = [a + 1, a + 2, a + 3];
  const [early = 0, more = 0] = await loadUsage(load, [a, late], [a, between, newest]);
  for (const id of [early, more]) await age(load, id, 150);
  t.equal(await load.subscribe(), late);
  const created = (id: number, days: number) =>
    load.pool.query(
      'UPDATE subscriptions SET created_at = now() - make_interval(days => $2) WHERE id = $1',
      [id, days],
    );
  await created(a, 200);
  await created(late, 120);
  const [counted = 0, old = 0] = await loadUsage(load, [a, late], [a], [a]);
  await age(load, counted, 110);

  t.match(await pruneAfterAudit(load, 100), { subscriptions: 2, differences: 0 });
  t.notOk((await segmentIds(load)).includes(more));
  t.notOk((await segmentIds(load)).includes(counted));
  t.ok(
    (await segmentIds(load)).includes(early),
    'its settled_at says which rows do not count for one subscription',
  );
  t.match(await pruneAfterAudit(load, 100), { subscriptions: 2, differences: 0 });

  t.equal(await load.subscribe(), between);
  await created(between, 95);
  await age(load, old, 92);
  t.match(await pruneAfterAudit(load, 90), { subscriptions: 3, differences: 0 });
  t.equal((await prunings(load)).length, 2);
  t.equal(await load.subscribe(), newest);
  t.match(await pruneAfterAudit(load, 90), { subscriptions: 4, differences: 0 });

  await load.pool.query('UPDATE subscriptions SET traffic_bytes_up = 9 WHERE id = $1', [newest]);
  t.match(await reconcile(load, { since: null, signal }), {
    details: [{ what: 'subscription', subscriptionId: newest, counterUp: '9', rowsUp: '0' }],
  });
});
