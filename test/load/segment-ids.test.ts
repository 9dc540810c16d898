import t from 'tap';
import { migrate } from '../../src/app/migrate.ts';
import { startWorker } from '../../src/app/worker.ts';
import { advanceSegmentIds } from '../../src/load/segment-ids.ts';
import { until } from '../support/api.ts';
import { startSpool } from '../support/spool.ts';
import { openDatabases } from '../support/stores.ts';

t.test('segment ids start at the clock and never go back', async (t) => {
  const { config, pool, log } = await openDatabases(t);
  await migrate(config, log);
  const next = async (): Promise<number> =>
    (await pool.query("SELECT nextval('segments_id_seq') AS id")).rows[0].id;
  const first = await next();
  t.ok(first > Date.parse('2026-01-01'), 'so that an emptied Postgres gives no id again');
  await pool.query("SELECT setval('segments_id_seq', $1)", [first + 1_000_000_000]);
  await migrate(config, log);
  t.equal(await next(), first + 1_000_000_001);
});

t.test('processes that start at once do not set the segment ids back', async (t) => {
  const { config, pool, log } = await openDatabases(t);
  await migrate(config, log);
  const advanceAndTake = async (): Promise<number> => {
    await advanceSegmentIds(pool);
    return (await pool.query("SELECT nextval('segments_id_seq') AS id")).rows[0].id;
  };
  const taken = await Promise.all(Array.from({ length: 50 }, advanceAndTake));
  t.equal(new Set(taken).size, 50, 'no id comes twice');
});

t.test('a worker moves the segment ids of a restored Postgres up to the clock', async (t) => {
  const load = await startSpool(t);
  // The backup is older than the rows in ClickHouse, and nobody runs `core up` or `core migrate`.
  await load.pool.query("SELECT setval('segments_id_seq', 5)");
  const startedAtMs = Date.now();
  const worker = await startWorker(load.config, load.log);
  t.teardown(() => worker.close());
  await load.appendUsage([{}]);
  const segments = async () =>
    (await load.pool.query<{ id: number }>('SELECT id FROM segments')).rows;
  const [segment] = await until(segments, (rows) => rows.length === 1);
  t.ok((segment?.id ?? 0) >= startedAtMs, `${segment?.id} is at or past ${startedAtMs}`);
});
