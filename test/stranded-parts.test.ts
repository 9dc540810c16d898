import t, { type Test } from 'tap';
import { packUsage, usageColumns } from '../src/ingest/pack.ts';
import { freeStrandedParts } from '../src/load/stranded-parts.ts';
import { createLogger } from '../src/log.ts';
import { type ClickHouseClient, createClickHouse, insertRows } from '../src/stores/clickhouse.ts';
import { migrateClickHouse, migratePostgres } from '../src/stores/migrate.ts';
import { createPool } from '../src/stores/postgres.ts';
import { freshStores } from './support/stores.ts';

const log = createLogger('silent');
const october = Date.UTC(2026, 9, 20);
const november = Date.UTC(2026, 10, 20);

function rowsAt(recordedAt: number, segment: bigint): Buffer {
  const block = packUsage(
    7,
    Array.from({ length: 100 }, (_, index) => ({
      userId: 1 + (index % 20),
      subscriptionId: 1 + (index % 20),
      nodeProtocolId: 1 + (index % 3),
      bytesUp: index * 1_000,
      bytesDown: 2 ** 53 - 1 - index,
      recordedAt,
    })),
  );
  for (let at = 48; at < block.length; at += 56) block.writeBigUInt64LE(segment, at);
  return block;
}

async function ask(clickhouse: ClickHouseClient, query: string) {
  const result = await clickhouse.query({ query, format: 'JSONEachRow' });
  return result.json<Record<string, unknown>>();
}

const parts = `SELECT partition_id AS month, min_block_number AS block, rows, length(projections) AS rollups
  FROM system.parts WHERE database = currentDatabase() AND table = 'usage' AND active
  ORDER BY month, block`;
const sums = `SELECT toStartOfHour(recorded_at) AS hour, node_id, node_protocol_id,
  toString(sum(bytes_up)) AS up, toString(sum(bytes_down)) AS down, count() AS rows
  FROM usage GROUP BY hour, node_id, node_protocol_id ORDER BY hour, node_id, node_protocol_id`;
const merge = 'OPTIMIZE TABLE usage FINAL SETTINGS optimize_throw_if_noop = 1';

/** Waits for all mutations of `usage`, by one that changes nothing. */
async function untilMutated(clickhouse: ClickHouseClient): Promise<void> {
  await clickhouse.command({
    query: `ALTER TABLE usage MATERIALIZE PROJECTION hourly_nodes SETTINGS mutations_sync = 2`,
  });
}

async function openUsage(t: Test) {
  const stores = await freshStores(t);
  const pool = createPool(stores.databaseUrl);
  const clickhouse = createClickHouse(stores.clickhouseUrl);
  t.teardown(async () => {
    await pool.end();
    await clickhouse.close();
  });
  await migratePostgres(pool, log);
  await migrateClickHouse(stores.clickhouseUrl, pool, log);
  await clickhouse.command({ query: 'SYSTEM STOP MERGES usage' });
  let segment = 0n;
  /** A part as an insert makes it, or as it is once it was merged. */
  const insert = async (recordedAt: number, kind: 'inserted' | 'merged'): Promise<void> => {
    segment += 1n;
    await clickhouse.command({
      query: `ALTER TABLE usage MODIFY SETTING materialize_projections_on_insert = ${kind === 'merged' ? 1 : 0}`,
    });
    await insertRows(clickhouse, {
      table: 'usage',
      columns: usageColumns,
      token: `segment-${segment}`,
      format: 'RowBinary',
      bytes: rowsAt(recordedAt, segment),
    });
  };
  return { clickhouse, insert };
}

t.test('a part between merged ones is given its rollups, and then all merge', async (t) => {
  const { clickhouse, insert } = await openUsage(t);
  for (const kind of ['merged', 'inserted', 'merged', 'inserted'] as const) {
    await insert(november, kind);
  }
  // Nothing is amiss in a month whose last parts are not merged yet.
  for (const kind of ['merged', 'inserted', 'inserted'] as const) await insert(october, kind);
  const before = await ask(clickhouse, parts);
  t.same(
    before.map((part) => part['rollups']),
    [2, 0, 0, 2, 0, 2, 0],
  );
  await clickhouse.command({ query: 'SYSTEM START MERGES usage' });
  await t.rejects(clickhouse.command({ query: merge }), /different projection sets/);

  t.same(await freeStrandedParts(clickhouse, 3_600), [], 'it is left to merges for a while');
  t.same(await freeStrandedParts(clickhouse, 0), ['202611']);
  await clickhouse.command({
    query: `ALTER TABLE usage DELETE WHERE segment = 0 SETTINGS mutations_sync = 2`,
  });
  const after = await ask(clickhouse, parts);
  const ofNovember = after.filter((part) => part['month'] === '202611');
  t.ok(ofNovember.every((part) => part['rollups'] === 2));
  t.same(await freeStrandedParts(clickhouse, 0), [], 'once');

  await clickhouse.command({ query: `${merge.replace('FINAL', "PARTITION ID '202611' FINAL")}` });
  const merged = await ask(clickhouse, parts);
  t.match(
    merged.filter((part) => part['month'] === '202611'),
    [{ rows: 400, rollups: 2 }],
  );
  t.same(
    await ask(clickhouse, sums),
    await ask(clickhouse, `${sums} SETTINGS optimize_use_projections = 0`),
  );
});

t.test('nothing is begun beside a mutation that is not done', async (t) => {
  const { clickhouse, insert } = await openUsage(t);
  for (const kind of ['inserted', 'merged'] as const) await insert(november, kind);
  // Merges are stopped, and mutations with them.
  t.same(await freeStrandedParts(clickhouse, 0), ['202611']);
  t.same(await freeStrandedParts(clickhouse, 0), []);
  await clickhouse.command({ query: 'SYSTEM START MERGES usage' });
  await untilMutated(clickhouse);
  t.match(await ask(clickhouse, parts), [{ rollups: 2 }, { rollups: 2 }]);
  await clickhouse.command({ query: merge });
  t.match(await ask(clickhouse, parts), [{ rows: 200, rollups: 2 }]);
});
