import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { projectRoot } from '../../src/root.ts';
import { clickhouseDatabase } from '../../src/stores/clickhouse.ts';
import { migratePostgres, readMigrations } from '../../src/stores/migrate.ts';
import { clickhouseStructure, postgresStructure } from '../support/sql-structure.ts';
import { openDatabases } from '../support/stores.ts';

/**
 * Compares the committed structure.sql of both databases with what the migrations make. After a new
 * migration write the files with `CORE_WRITE_STRUCTURE=1 npm test -- test/stores/structure.test.ts`.
 */
function committed(folder: string, actual: string): string {
  const file = path.join(projectRoot, folder, 'structure.sql');
  if (process.env['CORE_WRITE_STRUCTURE'] === '1') writeFileSync(file, actual);
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

t.test('migrations make the committed structure, run once, and must not change', async (t) => {
  const stores = await openDatabases(t);
  const { log, pool, clickhouse, migrate } = stores;
  await Promise.all([migrate(), migrate()]);
  await migrate();

  const postgres = await postgresStructure(pool);
  t.equal(postgres, committed('postgres', postgres));
  const tables = await clickhouseStructure(clickhouse, clickhouseDatabase(stores.clickhouseUrl));
  t.equal(tables, committed('clickhouse', tables));

  const { rows } = await pool.query<{ version: number; hash: string }>(
    'SELECT version, hash FROM migrations ORDER BY version',
  );
  const files = await readMigrations('postgres');
  t.same(
    rows,
    files.map(({ version, hash }) => ({ version, hash })),
  );

  await pool.query("UPDATE migrations SET hash = 'x' WHERE version = 1");
  await t.rejects(migratePostgres(pool, log), {
    code: 'MIGRATION_FAILED',
    message: /was changed after it was applied/,
  });
  await pool.query("INSERT INTO migrations (version, name, hash) VALUES (999999, 'future', 'x')");
  await pool.query('UPDATE migrations SET hash = $1 WHERE version = 1', [files[0]?.hash]);
  await t.rejects(migratePostgres(pool, log), {
    code: 'MIGRATION_FAILED',
    message: /which this version of Core lacks/,
  });
});
