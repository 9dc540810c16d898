import t from 'tap';
import { post, registerTestNode, startTestApi, until, usageEntry } from '../support/api.ts';
import { startTestWorker } from '../support/worker.ts';

t.test('while ClickHouse refuses inserts, no row is lost and none is doubled', async (t) => {
  const api = await startTestApi(t, { CORE_SPOOL_SHARDS: '1', CORE_LOAD_INTERVAL_MS: '50' });
  const clickhouse = await startTestWorker(t, api);
  const node = await registerTestNode(api);
  const send = async (userId: number): Promise<void> => {
    const reply = await post(api, '/node/usage', { entries: [usageEntry({ userId })] }, { node });
    t.equal(reply.status, 200);
  };
  const found = async (): Promise<number[]> => {
    const rows = await clickhouse.query({
      query: 'SELECT user_id FROM usage ORDER BY user_id',
      format: 'JSONCompactEachRow',
    });
    return (await rows.json<[number]>()).map(([userId]) => userId);
  };
  const unsettled = async (): Promise<{ attempts: number; last_error: string | null }[]> =>
    (await api.pool.query("SELECT attempts, last_error FROM segments WHERE state = 'sealed'")).rows;

  await send(1);
  await until(found, (rows) => rows.length === 1);
  // The table has one part now, so each further insert makes one too many.
  await clickhouse.command({ query: 'ALTER TABLE usage MODIFY SETTING parts_to_throw_insert = 1' });
  await send(2);
  await send(3);
  const refused = await until(unsettled, (rows) => (rows[0]?.attempts ?? 0) >= 2);
  t.match(refused[0]?.last_error, /[Tt]oo many parts/);
  t.same(await found(), [1]);
  await clickhouse.command({ query: 'ALTER TABLE usage RESET SETTING parts_to_throw_insert' });
  await until(unsettled, (rows) => rows.length === 0);
  t.same(await until(found, (rows) => rows.length >= 3), [1, 2, 3]);
});
