import t, { type Test } from 'tap';
import { freeStrandedParts } from '../../src/load/stranded-parts.ts';
import type { ClickHouseClient } from '../../src/stores/clickhouse.ts';
import { openDatabases } from '../support/stores.ts';
import { ask, hourlyNodes, insertUsage, noRollup, usageRows } from '../support/usage-table.ts';

const october = Date.UTC(2026, 9, 20);
const november = Date.UTC(2026, 10, 20);
const atOnce = { ageSecondsMin: 0, partsMin: 1 };

const parts = `SELECT partition_id AS month, min_block_number AS block, rows, length(projections) AS rollups
  FROM system.parts WHERE database = currentDatabase() AND table = 'usage' AND active
  ORDER BY month, block`;
const merge = 'OPTIMIZE TABLE usage FINAL SETTINGS optimize_throw_if_noop = 1';

/** Waits for all mutations of `usage`: adds one that changes nothing and waits for that. */
async function untilMutated(clickhouse: ClickHouseClient): Promise<void> {
  await clickhouse.command({
    query: 'ALTER TABLE usage DELETE WHERE segment = 0 SETTINGS mutations_sync = 2',
  });
}

async function openUsage(t: Test) {
  const { clickhouse, migrate } = await openDatabases(t);
  await migrate();
  await clickhouse.command({ query: 'SYSTEM STOP MERGES usage' });
  let segment = 0n;
  /** Adds a part as an insert makes it, or as a merge does. */
  const insert = async (recordedAt: number, kind: 'inserted' | 'merged'): Promise<void> => {
    segment += 1n;
    await clickhouse.command({
      query: `ALTER TABLE usage MODIFY SETTING materialize_projections_on_insert = ${kind === 'merged' ? 1 : 0}`,
    });
    await insertUsage(clickhouse, usageRows(recordedAt, segment, 100), `segment-${segment}`);
  };
  return { clickhouse, insert };
}

t.test('a part between merged ones gets its rollups, and then all merge', async (t) => {
  const { clickhouse, insert } = await openUsage(t);
  for (const kind of ['merged', 'inserted', 'merged', 'inserted'] as const) {
    await insert(november, kind);
  }
  // Nothing is wrong with a month while its last parts are not merged yet.
  for (const kind of ['merged', 'inserted', 'inserted'] as const) await insert(october, kind);
  const before = await ask(clickhouse, parts);
  t.same(
    before.map((part) => part['rollups']),
    [2, 0, 0, 2, 0, 2, 0],
  );
  await clickhouse.command({ query: 'SYSTEM START MERGES usage' });
  await t.rejects(clickhouse.command({ query: merge }), /different projection sets/);

  t.same(await freeStrandedParts(clickhouse, { ageSecondsMin: 3_600, partsMin: 1 }), [], 'not yet');
  t.same(await freeStrandedParts(clickhouse, { ageSecondsMin: 0, partsMin: 2 }), [], 'too few');
  t.same(await freeStrandedParts(clickhouse, atOnce), ['202611']);
  await untilMutated(clickhouse);
  const after = await ask(clickhouse, parts);
  const ofNovember = after.filter((part) => part['month'] === '202611');
  t.ok(ofNovember.every((part) => part['rollups'] === 2));
  t.same(await freeStrandedParts(clickhouse, atOnce), [], 'once');

  await clickhouse.command({ query: `${merge.replace('FINAL', "PARTITION ID '202611' FINAL")}` });
  const merged = await ask(clickhouse, parts);
  t.match(
    merged.filter((part) => part['month'] === '202611'),
    [{ rows: 400, rollups: 2 }],
  );
  t.same(await ask(clickhouse, hourlyNodes), await ask(clickhouse, hourlyNodes + noRollup));
});

t.test('nothing begins while a mutation is unfinished', async (t) => {
  const { clickhouse, insert } = await openUsage(t);
  for (const kind of ['inserted', 'merged'] as const) await insert(november, kind);
  // Merges are stopped, so mutations do not run either.
  t.same(await freeStrandedParts(clickhouse, atOnce), ['202611']);
  t.same(await freeStrandedParts(clickhouse, atOnce), []);
  await clickhouse.command({ query: 'SYSTEM START MERGES usage' });
  await untilMutated(clickhouse);
  t.match(await ask(clickhouse, parts), [{ rollups: 2 }, { rollups: 2 }]);
  await clickhouse.command({ query: merge });
  t.match(await ask(clickhouse, parts), [{ rows: 200, rollups: 2 }]);
});
