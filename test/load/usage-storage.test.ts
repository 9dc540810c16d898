import t from 'tap';
import type { ClickHouseClient } from '../../src/stores/clickhouse.ts';
import { migrateClickHouse, migratePostgres, readMigrations } from '../../src/stores/migrate.ts';
import { openDatabases } from '../support/stores.ts';
import { ask, hourlyNodes, insertUsage, noRollup, usageRows } from '../support/usage-table.ts';

const months = [Date.UTC(2026, 8, 30, 23), Date.UTC(2026, 9, 31, 23), Date.UTC(2026, 10, 2)];

/** Rows of two hours. */
function rowsFrom(fromMs: number, segment: bigint): Buffer {
  return usageRows(fromMs, segment, 2_400);
}

const allRows = `SELECT toYYYYMM(recorded_at) AS month, count() AS rows,
  toString(groupBitXor(cityHash64(*))) AS hash FROM usage GROUP BY month ORDER BY month`;
const hourly = `SELECT toStartOfHour(recorded_at) AS hour, subscription_id, toString(sum(bytes_up)) AS up,
  toString(sum(bytes_down)) AS down, count() AS rows
  FROM usage GROUP BY hour, subscription_id ORDER BY hour, subscription_id`;
const rollups = ['hourly_nodes', 'hourly_subscriptions'];
const only = (rollup: string): string =>
  ` SETTINGS force_optimize_projection = 1, force_optimize_projection_name = '${rollup}'`;

/** Makes the rollups of every part, and waits until they are there. */
async function materialize(clickhouse: ClickHouseClient): Promise<void> {
  for (const rollup of rollups) {
    await clickhouse.command({
      query: `ALTER TABLE usage MATERIALIZE PROJECTION ${rollup} SETTINGS mutations_sync = 2`,
    });
  }
}

/** The sums by the rollups alone, and by the rows alone. */
async function sums(clickhouse: ClickHouseClient) {
  return {
    rollups: [
      await ask(clickhouse, hourly + only('hourly_subscriptions')),
      await ask(clickhouse, hourlyNodes + only('hourly_nodes')),
    ],
    rows: [await ask(clickhouse, hourly + noRollup), await ask(clickhouse, hourlyNodes + noRollup)],
  };
}

t.test('rows in the tables of version 1 survive the change of storage', async (t) => {
  const { clickhouse, clickhouseUrl, pool, log } = await openDatabases(t);
  await migratePostgres(pool, log);
  const [first, second] = await readMigrations('clickhouse');
  if (first === undefined || second === undefined) throw new Error('a migration is missing');
  const run = async (sql: string, limit = Number.POSITIVE_INFINITY): Promise<void> => {
    for (const query of sql.split(/;\s*$/m).slice(0, limit)) {
      if (query.trim() !== '') await clickhouse.command({ query });
    }
  };
  await clickhouse.command({
    query: `CREATE TABLE migrations (version UInt32, name String, hash String,
      applied_at DateTime('UTC') DEFAULT now()) ENGINE = MergeTree ORDER BY version`,
  });
  await run(first.sql);
  await clickhouse.insert({
    table: 'migrations',
    values: [{ version: 1, name: first.name, hash: first.hash }],
    format: 'JSONEachRow',
  });
  for (const [index, month] of months.entries()) {
    // For the first two of these, the two hours lie in two months.
    const half = rowsFrom(month, BigInt(index));
    await insertUsage(clickhouse, half.subarray(0, half.length / 2), `old-${index}-0`);
    await insertUsage(clickhouse, half.subarray(half.length / 2), `old-${index}-1`);
  }
  const before = await ask(clickhouse, allRows);
  t.same(
    before.map(({ month, rows }) => [month, rows]),
    [
      [202609, 1200],
      [202610, 2400],
      [202611, 3600],
    ],
  );

  // The migration was killed after two statements, then after the last one but before its version row.
  await run(second.sql, 2);
  await run(second.sql);
  await migrateClickHouse(clickhouseUrl, pool, log);
  t.same(await ask(clickhouse, allRows), before);
  // The migration begins to make the rollups; this waits until they are there.
  await materialize(clickhouse);
  t.same(await ask(clickhouse, allRows), before);
  t.same(
    await ask(
      clickhouse,
      `SELECT DISTINCT arraySort(projections) AS rollups FROM system.parts
      WHERE database = currentDatabase() AND table = 'usage' AND active`,
    ),
    [{ rollups }],
    'old rows have the new rollups, and no longer the old one',
  );
  const found = await sums(clickhouse);
  t.same(found.rollups, found.rows);
});

t.test('sums by the rollups and by the rows are equal, before and after a merge', async (t) => {
  const { clickhouse, migrate } = await openDatabases(t);
  await migrate();
  await clickhouse.command({ query: 'SYSTEM STOP MERGES usage' });
  const [, , november = 0] = months;
  for (const segment of [1n, 2n, 3n]) {
    await insertUsage(clickhouse, rowsFrom(november, segment), `segment-${segment}`);
    // ClickHouse knows the token, so this stores nothing, in the rollups either.
    await insertUsage(clickhouse, rowsFrom(november, segment), `segment-${segment}`);
  }
  const parts = `SELECT rows, projections FROM system.parts
    WHERE database = currentDatabase() AND table = 'usage' AND active ORDER BY name`;
  t.same(await ask(clickhouse, parts), Array(3).fill({ rows: 2_400, projections: [] }));
  const truth = await ask(clickhouse, hourly + noRollup);
  t.equal(truth.length, 40);
  t.same(await ask(clickhouse, hourly), truth, 'before any merge');

  await clickhouse.command({ query: 'SYSTEM START MERGES usage' });
  await clickhouse.command({ query: 'OPTIMIZE TABLE usage FINAL' });
  // If a merge of only two parts came first, the third has no rollups, and this makes them.
  await materialize(clickhouse);
  const merged = await ask(clickhouse, parts);
  t.ok(merged.length < 3, 'merged');
  t.ok(merged.every((part) => t.same([...(part['projections'] as string[])].sort(), rollups)));
  const found = await sums(clickhouse);
  t.same(found.rollups, found.rows, 'from the rollups alone');
  t.same(found.rows[0], truth);
  t.equal(found.rows[1]?.length, 6);
  const plan = async (query: string) => JSON.stringify(await ask(clickhouse, `EXPLAIN ${query}`));
  t.match(await plan(hourly), /ReadFromMergeTree \(hourly_subscriptions\)/);
  t.match(await plan(hourlyNodes), /ReadFromMergeTree \(hourly_nodes\)/);

  await insertUsage(clickhouse, rowsFrom(november, 4n), 'segment-4');
  t.same(
    await ask(clickhouse, hourly),
    await ask(clickhouse, hourly + noRollup),
    'some parts have rollups and one has none',
  );
  // A DELETE by hand makes the rollups of the part again.
  await clickhouse.command({ query: 'DELETE FROM usage WHERE segment IN (1, 4)' });
  t.same(await ask(clickhouse, hourly), await ask(clickhouse, hourly + noRollup));
  t.same(await ask(clickhouse, 'SELECT count() AS rows FROM usage'), [{ rows: 4_800 }]);
});
