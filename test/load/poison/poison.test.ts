import { EventEmitter, once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { ClickHouseError } from '@clickhouse/client';
import t, { type Test } from 'tap';
import { reconcile } from '../../../src/audit/reconcile.ts';
import { openRows } from '../../../src/load/insert.ts';
import { findRefusedRows, refusedRowsMax, trialTable } from '../../../src/load/poison/bisect.ts';
import { dataRefusal } from '../../../src/load/poison/refusal.ts';
import { rejectRows } from '../../../src/load/poison/reject.ts';
import { usageColumns } from '../../../src/rows/pack.ts';
import { listUnsettled } from '../../../src/spool/backlog.ts';
import { streamName } from '../../../src/spool/streams.ts';
import { type ClickHouseClient, createClickHouse } from '../../../src/stores/clickhouse.ts';
import { until } from '../../support/api.ts';
import { startCore } from '../../support/core-process.ts';
import { freePorts } from '../../support/free-port.ts';
import { atMs, startSpool } from '../../support/spool.ts';

const octoberMs = Date.parse('2026-10-31T23:59:59Z');
const refuse666 = 'ALTER TABLE usage ADD CONSTRAINT c CHECK user_id != 666';
const signal = new AbortController().signal;

type Load = Awaited<ReturnType<typeof startSpool>>;

const trialTables = (load: Load) =>
  load.rows(
    "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '%trial%'",
  );

/** What must hold once a poisoned segment has settled. */
async function checkSettled(t: Test, load: Load, rows: { inserted: number; rejected: number }) {
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: rows.inserted }]);
  t.same(await load.rows('SELECT count() AS n FROM usage WHERE user_id = 666'), [{ n: 0 }]);
  const rejected = await load.pool.query('SELECT count(*) AS n FROM rejected_rows');
  t.same(rejected.rows, [{ n: rows.rejected }]);
  t.match(await load.counters(), [{ up: rows.inserted * 10, down: rows.inserted * 100 }]);
  const segments = await load.pool.query('SELECT state, rejected, last_error FROM segments');
  t.same(segments.rows, [{ state: 'settled', rejected: rows.rejected, last_error: null }]);
  t.same(await trialTables(load), []);
  const found = await reconcile(
    { pool: load.pool, clickhouse: load.clickhouse },
    { since: null, signal },
  );
  t.match(found, { segments: 1, subscriptions: 1, differences: 0 });
}

t.test('the rows at fault are set aside, and the rest is inserted and counts', async (t) => {
  const load = await startSpool(t);
  const subscriptionId = await load.subscribe();
  await load.command(refuse666);
  const entries = Array.from({ length: 60 }, (_, index) => ({
    subscriptionId,
    recordedAt: index % 2 === 0 ? atMs : octoberMs,
    ...([0, 7, 8, 9, 58].includes(index) ? { userId: 666, bytesUp: index } : {}),
  }));
  await load.appendUsage(entries);
  for (const attempt of [1, 2]) {
    await t.rejects(
      load.run('usage', { poisonAttempts: 3 }),
      { code: '469' },
      `attempt ${attempt}`,
    );
    t.same((await load.pool.query('SELECT * FROM rejected_rows')).rows, []);
  }
  t.match(await load.run('usage', { poisonAttempts: 3 }), { outcome: 'drained', segments: 1 });
  await checkSettled(t, load, { inserted: 55, rejected: 5 });
  const { rows } = await load.pool.query(
    `SELECT month, position, kind, row_json, reason, length(row_bytes) AS bytes
     FROM rejected_rows ORDER BY month, position`,
  );
  t.match(
    rows.map((row) => [row.month, row.position, row.row_json.bytes_up]),
    [
      [202610, 3, 7],
      [202610, 4, 9],
      [202611, 0, 0],
      [202611, 4, 8],
      [202611, 29, 58],
    ],
  );
  t.match(rows[0], {
    kind: 'usage',
    bytes: 56,
    reason: /^VIOLATED_CONSTRAINT \(469\): Constraint `c`/,
    row_json: {
      node_id: load.nodeId,
      user_id: 666,
      subscription_id: subscriptionId,
      recorded_at: '2026-10-31T23:59:59.000Z',
    },
  });
});

t.test('rows that are refused later, and a segment without any row left', async (t) => {
  const load = await startSpool(t);
  await load.command(refuse666);
  await load.command('ALTER TABLE usage ADD CONSTRAINT d CHECK user_id != 667');
  await load.appendUsage([{ userId: 666 }, { userId: 667 }]);
  t.match(await load.run('usage', { poisonAttempts: 1 }), { segments: 1 });
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 0 }]);

  await load.command('ALTER TABLE usage DROP CONSTRAINT d');
  await load.appendUsage([{ userId: 666 }, { userId: 1 }, { userId: 667 }, { userId: 668 }]);
  // A process that dies right after the decision leaves this, and a trial table.
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  const stream = streamName(load.redisPrefix, 0, 'usage');
  const sealed = await load.seal(client, stream);
  if (sealed?.entries === undefined) throw new Error('nothing was sealed');
  const { segment, entries } = sealed;
  const target = { table: 'usage', columns: usageColumns, segmentId: segment.id };
  const opened = openRows(segment, 'usage', entries.blocks, load.deps.buffers);
  const [month] = opened.months;
  const single = month === undefined ? [] : opened.singleRows(month, new Set());
  const refused = await findRefusedRows(load.clickhouse, target, single);
  await rejectRows(client, segment, 'usage', 202611, refused);
  await load.pool.query('UPDATE segments SET attempts = 1 WHERE id = $1', [segment.id]);
  await load.command(`CREATE TABLE ${trialTable(target)} AS usage ENGINE = Null`);

  await load.command('ALTER TABLE usage ADD CONSTRAINT d CHECK user_id != 667');
  await load.command('ALTER TABLE usage DROP CONSTRAINT c');
  t.match(await load.run('usage', { poisonAttempts: 1 }), { segments: 1 });
  t.same(await load.rows('SELECT user_id FROM usage ORDER BY user_id'), [
    { user_id: 1 },
    { user_id: 668 },
  ]);
  const { rows } = await load.pool.query(
    'SELECT position FROM rejected_rows ORDER BY segment_id, position',
  );
  t.same(
    rows,
    [0, 1, 0, 2].map((position) => ({ position })),
  );
  t.same(await trialTables(load), []);
  const found = await reconcile(
    { pool: load.pool, clickhouse: load.clickhouse },
    { since: null, signal },
  );
  t.match(found, { segments: 2, differences: 0 });
});

t.test('sessions that ClickHouse refuses are set aside, too', async (t) => {
  const load = await startSpool(t);
  await load.command("ALTER TABLE session_events ADD CONSTRAINT c CHECK ip_address != 'bad'");
  const event = { userId: 3, protocol: 'TROJAN', eventType: 'OFFLINE', occurredAt: atMs } as const;
  const long = 'x'.repeat(200);
  await load.appendSessions([{ ...event, ipAddress: long }, { ...event, ipAddress: 'bad' }, event]);
  t.match(await load.run('session', { poisonAttempts: 1 }), { segments: 1 });
  t.same(await load.rows('SELECT ip_address FROM session_events ORDER BY ip_address'), [
    { ip_address: '' },
    { ip_address: long },
  ]);
  t.match((await load.pool.query('SELECT position, row_json FROM rejected_rows')).rows, [
    {
      position: 1,
      row_json: {
        node_id: load.nodeId,
        user_id: 3,
        protocol: 'TROJAN',
        event_type: 'OFFLINE',
        occurred_at: '2026-11-24T10:00:00.000Z',
        ip_address: 'bad',
      },
    },
  ]);
});

t.test('if ClickHouse is away or lacks a table, no row is set aside', async (t) => {
  const load = await startSpool(t);
  await load.appendUsage([{}, {}]);
  const [port] = await freePorts(1);
  const away = createClickHouse(`http://127.0.0.1:${port}/x`);
  t.teardown(() => away.close());
  await t.rejects(load.run('usage', { poisonAttempts: 1, clickhouse: away }), {
    code: 'ECONNREFUSED',
  });
  await load.command('RENAME TABLE usage TO usage_away');
  await t.rejects(load.run('usage', { poisonAttempts: 1 }), { code: '60' });
  await load.command('RENAME TABLE usage_away TO usage');
  t.match(await load.run('usage', { poisonAttempts: 1 }), { segments: 1, rows: 2 });
  t.same((await load.pool.query('SELECT * FROM rejected_rows')).rows, []);
});

t.test('if a table refuses too many rows, none is set aside', async (t) => {
  t.equal(refusedRowsMax, 1_000);
  // Each row found takes two trial INSERTs, so the bound is lower here.
  const options = { poisonAttempts: 1, refusedRowsMax: 20 };
  const load = await startSpool(t);
  await load.command(refuse666);
  await load.appendUsage(Array.from({ length: 30 }, () => ({ userId: 666 })));
  await t.rejects(load.run('usage', options), {
    code: 'SEGMENT_REFUSED',
    message: /over 20 rows of segment \d+: VIOLATED_CONSTRAINT/,
  });
  t.same((await load.pool.query('SELECT * FROM rejected_rows')).rows, []);
  t.same(await trialTables(load), []);
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 0 }]);
  const event = { userId: 3, protocol: 'VLESS', eventType: 'ONLINE', occurredAt: atMs } as const;
  await load.appendSessions([event]);
  t.match(await load.run('session'), { outcome: 'drained', segments: 1 }, 'other streams go on');
  const listed = await listUnsettled(load.pool, { rowsMax: 10 });
  t.match(listed, [{ rows: 30, attempts: 1, rejected: 0, lastError: /over 20 rows/ }]);
  t.equal(listed.length, 1, 'the segment waits, and `core segments` shows it');

  await load.command('ALTER TABLE usage DROP CONSTRAINT c');
  t.match(await load.run('usage', options), { segments: 1, rows: 30 });
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 30 }]);
});

t.test('if ClickHouse is short of memory, the segment waits and loses no row', async (t) => {
  const load = await startSpool(t);
  const subscriptionId = await load.subscribe();
  await load.appendUsage(Array.from({ length: 20_000 }, () => ({ subscriptionId })));
  const starved = withMemory(load.clickhouse, 50_000);
  for (const attempts of [1, 2]) {
    await t.rejects(load.run('usage', { poisonAttempts: 1, clickhouse: starved }), {
      code: '241',
    });
    t.match(await listUnsettled(load.pool, { rowsMax: 10 }), [{ attempts, lastError: /memory/i }]);
  }
  t.same((await load.pool.query('SELECT * FROM rejected_rows')).rows, []);
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 0 }]);
  t.match(await load.run('usage', { poisonAttempts: 1 }), { segments: 1, rows: 20_000 });
  await checkSettled(t, load, { inserted: 20_000, rejected: 0 });
});

/** The same ClickHouse, which gives an insert this much memory. */
function withMemory(clickhouse: ClickHouseClient, bytes: number): ClickHouseClient {
  return new Proxy(clickhouse, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (key !== 'exec') return typeof value === 'function' ? value.bind(target) : value;
      return (params: Parameters<ClickHouseClient['exec']>[0]) =>
        target.exec({
          ...params,
          clickhouse_settings: { ...params.clickhouse_settings, max_memory_usage: String(bytes) },
        });
    },
  });
}

t.test('only a code that is about the data is a refusal', async (t) => {
  const refusal = (code: string) => new ClickHouseError({ code, type: 'T', message: 'no\u0000' });
  t.equal(dataRefusal(refusal('469')), 'T (469): no\\0');
  // Time-out, too many queries, socket time-out, memory limit, read-only, too many parts, aborted.
  for (const code of ['159', '202', '209', '241', '242', '252', '236', '60', '1002']) {
    t.equal(dataRefusal(refusal(code)), undefined, code);
  }
  t.equal(dataRefusal(Object.assign(new Error('x'), { code: '469' })), undefined);
});

t.test('kill -9 in the middle of a bisect and around the insert of the rest', async (t) => {
  const load = await startSpool(t);
  const subscriptionId = await load.subscribe();
  await load.command(refuse666);
  await load.appendUsage(
    Array.from({ length: 40 }, (_, index) => ({
      subscriptionId,
      ...([3, 20, 21].includes(index) ? { userId: 666 } : {}),
    })),
  );
  const proxy = await startProxy(t, load.clickhouseUrl);
  const worker = () =>
    startCore(t, ['work'], {
      ...load.environment,
      CLICKHOUSE_URL: proxy.url,
      CORE_POISON_ATTEMPTS: '1',
    });
  const rejected = async () =>
    (await load.pool.query('SELECT count(*) AS n FROM rejected_rows')).rows[0].n;
  const isTrial = (query: string) => /^INSERT INTO usage_trial_/.test(query);
  const isReal = (query: string) => /^INSERT INTO usage \(/.test(query);

  const killAt = async (nth: number, when: 'before' | 'after', at: (query: string) => boolean) => {
    const held = proxy.hold(nth, when, at);
    const process_ = worker();
    await held;
    process_.signal('SIGKILL');
    t.match(await process_.exited, { signal: 'SIGKILL' });
    proxy.release();
  };
  await killAt(6, 'before', isTrial);
  t.equal(await rejected(), 0, 'no row is rejected in the middle of the search');
  // ClickHouse refuses the first real insert of an attempt; the second one is that of the rest.
  await killAt(2, 'before', isReal);
  t.equal(await rejected(), 3, 'the rows are rejected before the rest is inserted');
  await killAt(1, 'after', isReal);
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 37 }]);
  const last = worker();
  await until(
    async () => (await load.pool.query('SELECT state FROM segments')).rows,
    (rows) => rows[0]?.state === 'settled',
    60_000,
  );
  last.signal('SIGTERM');
  t.match(await last.exited, { code: 0 });
  await checkSettled(t, load, { inserted: 37, rejected: 3 });
});

/**
 * ClickHouse behind a proxy that can hold a request back for ever: before it passes the request on, or
 * after ClickHouse has answered.
 */
async function startProxy(t: Test, clickhouseUrl: string) {
  const target = new URL(clickhouseUrl);
  const events = new EventEmitter();
  let rule: { nth: number; when: 'before' | 'after'; at: (query: string) => boolean } | undefined;
  const server = http.createServer(async (request, response) => {
    const body = await buffer(request);
    const query = new URL(request.url ?? '/', target).searchParams.get('query') ?? '';
    const held = rule?.at(query) === true && --rule.nth === 0 ? rule.when : undefined;
    if (held === 'before') return void events.emit('held');
    const passed = http.request(
      {
        host: target.hostname,
        port: target.port,
        path: request.url,
        method: request.method,
        headers: request.headers,
      },
      async (answer) => {
        const answered = await buffer(answer);
        if (held === 'after') return void events.emit('held');
        response.writeHead(answer.statusCode ?? 500, answer.headers).end(answered);
      },
    );
    passed.once('error', () => response.destroy());
    passed.end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = new URL(clickhouseUrl);
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    async hold(nth: number, when: 'before' | 'after', at: (query: string) => boolean) {
      rule = { nth, when, at };
      await once(events, 'held');
    },
    release() {
      rule = undefined;
    },
  };
}
