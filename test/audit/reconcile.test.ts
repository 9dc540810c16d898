import t, { type Test } from 'tap';
import { startWorker } from '../../src/app/worker.ts';
import { reconcile } from '../../src/audit/reconcile.ts';
import { lastAudit, runAudit, runAuditIfDue } from '../../src/audit/run-audit.ts';
import { inQuietSnapshot } from '../../src/audit/snapshot.ts';
import { usageColumns } from '../../src/rows/pack.ts';
import { writePart } from '../../src/stores/clickhouse.ts';
import { migrateClickHouse } from '../../src/stores/migrate.ts';
import { get, startTestApi, until } from '../support/api.ts';
import { commandLine } from '../support/cli.ts';
import { atMs, startSpool } from '../support/spool.ts';

type Load = Awaited<ReturnType<typeof startSpool>>;

const signal = new AbortController().signal;
const audit = (load: Load, since: Date | null = null) =>
  reconcile({ pool: load.pool, clickhouse: load.clickhouse }, { since, signal });

const core = (environment: Record<string, string>, ...args: string[]) =>
  commandLine(environment).core(...args);

t.test('an audit of a running system shows no difference', async (t) => {
  const load = await startSpool(t, { CORE_SPOOL_SHARDS: '2' });
  const ids = [await load.subscribe(), await load.subscribe()];
  let loading = true;
  const fill = async (shard: number) => {
    for (let post = 0; post < 60; post += 1) {
      await load.appendUsage(
        Array.from({ length: 50 }, (_, index) => ({ subscriptionId: ids[index % 2] ?? null })),
        shard,
      );
      await load.run('usage', {}, shard);
    }
  };
  const filling = Promise.all([fill(0), fill(1)]).finally(() => {
    loading = false;
  });
  let audits = 0;
  let partial = 0;
  for (; loading; audits += 1) {
    const found = await audit(load);
    t.same([found.differences, found.details], [0, []]);
    if (found.segments > 0 && found.segments < 120) partial += 1;
  }
  await filling;
  t.ok(partial > 0, `${partial} of ${audits} audits saw a part of the segments`);
  t.match(await audit(load), { segments: 120, subscriptions: 2, differences: 0 });
});

t.test('an audit leaves out segments that are sealed meanwhile or not settled', async (t) => {
  const load = await startSpool(t);
  const subscriptionId = await load.subscribe();
  const writer = await load.pool.connect();
  t.teardown(() => writer.release());
  // This seal has its id, and commits only once the audit waits for it.
  await writer.query('BEGIN');
  await writer.query(
    `INSERT INTO segments (stream, seq, first_id, last_id, rows, bytes, appended_bytes)
     VALUES ($1, 1, '1-1', '1-1', 1, 56, 56)`,
    [`${load.redisPrefix}:{s0}:usage`],
  );
  const snapshot = inQuietSnapshot(
    load.pool,
    async (client) => (await client.query('SELECT count(*) AS n FROM segments')).rows[0].n,
  );
  await until(
    async () =>
      (
        await load.pool.query(
          "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'segments'::regclass",
        )
      ).rowCount,
    (waiting) => waiting === 1,
  );
  await writer.query('COMMIT');
  t.equal(await snapshot, 1, 'the snapshot is of a moment when nobody seals');

  await load.appendUsage([{ subscriptionId }]);
  const { rows } = await load.pool.query("SELECT id FROM segments WHERE state = 'sealed'");
  await writePart(load.clickhouse, {
    table: 'usage',
    columns: usageColumns,
    token: 'x',
    format: 'RowBinary',
    bytes: stampedRow(rows[0].id, subscriptionId),
  });
  t.match(await audit(load), { segments: 0, subscriptions: 1, differences: 0 });
});

/** One usage row of a segment. */
function stampedRow(segment: number, subscriptionId: number): Buffer {
  const row = Buffer.alloc(56);
  row.writeBigUInt64LE(BigInt(subscriptionId), 20);
  row.writeBigUInt64LE(7n, 28);
  row.writeUInt32LE(atMs / 1_000, 44);
  row.writeBigUInt64LE(BigInt(segment), 48);
  return row;
}

/** Three subscriptions with a segment of usage each, a segment of sessions, and no difference. */
async function loadWithoutDifference(t: Test) {
  const load = await startSpool(t);
  const subscriptionIds = [
    await load.subscribe(),
    await load.subscribe(),
    await load.subscribe(),
  ] as const;
  for (const subscriptionId of subscriptionIds) {
    await load.appendUsage([{ subscriptionId }, { subscriptionId: null }]);
    await load.run('usage');
  }
  await load.appendSessions([
    { userId: 1, protocol: 'VLESS', eventType: 'ONLINE', occurredAt: atMs },
  ]);
  await load.run('session');
  t.match(await audit(load), { segments: 4, subscriptions: 3, differences: 0 });
  t.match(await core(load.environment, 'reconcile', '--json'), { exitCode: 0, stderr: '' });
  const { rows } = await load.pool.query<{ id: number }>('SELECT id FROM segments ORDER BY id');
  return { load, subscriptionIds, segmentIds: rows.map((row) => row.id) };
}

t.test('each difference is named, and the exit code is 1', async (t) => {
  const { load, subscriptionIds, segmentIds } = await loadWithoutDifference(t);
  const [first, second, third] = subscriptionIds;
  const [lost = 0, doubled = 0, , session = 0] = segmentIds;
  await damage(load, { lost, doubled, session, subscriptionId: third });
  const found = await audit(load);
  const usage = { table: 'usage' };
  const counters = { counterUp: '10', counterDown: '100' };
  t.same(found.differences, 7);
  t.same(
    sorted(found.details),
    sorted([
      { what: 'segment', segmentId: lost, ...usage, expectedRows: 2, foundRows: 0 },
      { what: 'segment', segmentId: doubled, ...usage, expectedRows: 2, foundRows: 4 },
      {
        what: 'segment',
        segmentId: session,
        table: 'session_events',
        expectedRows: 1,
        foundRows: 0,
      },
      { what: 'unknown-segment', segmentId: 12_345, ...usage, expectedRows: 0, foundRows: 1 },
      ...[
        { subscriptionId: first, ...counters, rowsUp: '0', rowsDown: '0' },
        { subscriptionId: second, ...counters, rowsUp: '20', rowsDown: '200' },
        { subscriptionId: third, ...counters, counterUp: '11', rowsUp: '10', rowsDown: '100' },
      ].map((about) => ({ what: 'subscription', ...about })),
    ]),
  );

  const json = await core(load.environment, 'reconcile', '--json');
  t.match(json, { exitCode: 1, stderr: '' });
  t.match(JSON.parse(json.stdout), { since: null, segments: 4, subscriptions: 3, differences: 7 });
  const text = await core(load.environment, 'reconcile');
  t.equal(text.exitCode, 1);
  t.match(text.stdout, `segment ${doubled} in usage`);
  t.match(text.stdout, new RegExp(`subscription ${third} +counters: 11 up, 100 down +rows: 10 up`));

  const { ranAt } = (await load.pool.query('SELECT now() AS "ranAt"')).rows[0];
  await load.appendUsage([{ subscriptionId: first }]);
  await load.run('usage');
  const since = await core(load.environment, 'reconcile', '--since', ranAt.toISOString());
  t.match(since, { exitCode: 0, stdout: /1 compared with their rows/ });
  t.match(since.stdout, /not compared: counters have no times, so --since cannot/);
  t.match(await core(load.environment, 'reconcile', '--since', 'yesterday'), { exitCode: 1 });
});

/** Loses the rows of two segments, doubles those of one, adds an unknown one, and moves a counter. */
async function damage(
  load: Load,
  at: { lost: number; doubled: number; session: number; subscriptionId: number },
): Promise<void> {
  await load.command(
    `ALTER TABLE usage DELETE WHERE segment = ${at.lost} SETTINGS mutations_sync = 2`,
  );
  await load.command(
    `ALTER TABLE session_events DELETE WHERE segment = ${at.session} SETTINGS mutations_sync = 2`,
  );
  await load.command(`INSERT INTO usage SELECT * FROM usage WHERE segment = ${at.doubled}`);
  await writePart(load.clickhouse, {
    table: 'usage',
    columns: usageColumns,
    token: 'unknown',
    format: 'RowBinary',
    bytes: stampedRow(12_345, 0),
  });
  await load.pool.query(
    'UPDATE subscriptions SET traffic_bytes_up = traffic_bytes_up + 1 WHERE id = $1',
    [at.subscriptionId],
  );
}

function sorted(details: readonly object[]): string[] {
  return details.map((detail) => JSON.stringify(detail)).sort();
}

t.test('counters at their maximum, and subscriptions that are gone or came later', async (t) => {
  const load = await startSpool(t);
  const [stopped, gone] = [await load.subscribe(), await load.subscribe()];
  const later = gone + 1;
  const huge = Array.from({ length: 1_030 }, () => ({
    subscriptionId: stopped,
    bytesUp: Number.MAX_SAFE_INTEGER,
  }));
  await load.appendUsage([...huge, { subscriptionId: gone }, { subscriptionId: later }]);
  await load.run('usage');
  await load.pool.query('DELETE FROM subscriptions WHERE id = $1', [gone]);
  t.equal(await load.subscribe(), later);
  await load.appendUsage([{ subscriptionId: later }, { subscriptionId: stopped }]);
  await load.run('usage');
  t.match(await load.counters(), [{ id: stopped }, { id: later, up: 10, down: 100 }]);
  t.match(await audit(load), { subscriptions: 2, differences: 0, details: [] });
  await load.pool.query('UPDATE subscriptions SET traffic_bytes_up = 9 WHERE id = $1', [later]);
  t.match(await audit(load), {
    details: [{ subscriptionId: later, counterUp: '9', rowsUp: '10', rowsDown: '100' }],
  });
});

t.test('the outcome is stored and shows in the metrics', async (t) => {
  const api = await startTestApi(t);
  await migrateClickHouse(api.config.stores.clickhouseUrl, api.pool, api.log);
  const metrics = async () => (await get(api.admin, '/metrics')).text;
  t.match(await metrics(), /^core_reconcile_age_seconds \+?Inf$/m);
  const worker = await startWorker(api.config, api.log);
  await until(metrics, (text) => /^core_reconcile_age_seconds \d/m.test(text));
  t.match(await metrics(), /^core_reconcile_differences 0$/m);
  t.match(await metrics(), /^core_rejected_rows_total 0$/m);
  await worker.close();

  const load = await startSpool(t);
  const deps = { pool: load.pool, clickhouse: load.clickhouse, log: load.log, signal };
  const subscriptionId = await load.subscribe();
  await load.pool.query('UPDATE subscriptions SET traffic_bytes_down = 5');
  await load.pool.query(
    "INSERT INTO audits (ran_at, segments, differences, details) VALUES (now() - interval '401 days', 1, 0, '[]')",
  );
  await runAudit(deps);
  const { rows } = await load.pool.query('SELECT segments, differences, details FROM audits');
  t.match(rows, [{ segments: 0, differences: 1, details: [{ subscriptionId, counterDown: '5' }] }]);
  t.equal(rows.length, 1, 'old outcomes go');
  await runAuditIfDue(deps);
  t.match((await load.pool.query('SELECT count(*) AS n FROM audits')).rows, [{ n: 1 }], 'not due');
  await load.pool.query("UPDATE audits SET ran_at = ran_at - interval '1 day'");
  const stop = new AbortController();
  stop.abort();
  await runAuditIfDue({ ...deps, signal: stop.signal });
  t.ok(
    ((await lastAudit(load.pool))?.ageSeconds ?? 0) >= 86_400,
    'a stop is no failure and stores no outcome',
  );
  await runAuditIfDue(deps);
  t.match(await lastAudit(load.pool), { differences: 1 });
  t.ok(((await lastAudit(load.pool))?.ageSeconds ?? 86_400) < 86_400);
});
