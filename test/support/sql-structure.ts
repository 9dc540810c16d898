import type pg from 'pg';
import type { ClickHouseClient } from '../../src/stores/clickhouse.ts';

/** The tables of a Postgres database as SQL, in a stable order. */
export async function postgresStructure(pool: pg.Pool): Promise<string> {
  const columns = await pool.query<{ table: string; line: string }>(
    `SELECT c.relname AS table, concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attidentity = 'a' THEN 'GENERATED ALWAYS AS IDENTITY' END,
       CASE WHEN a.attnotnull THEN 'NOT NULL' END,
       CASE a.attgenerated WHEN 's' THEN
         'GENERATED ALWAYS AS ' || pg_get_expr(d.adbin, d.adrelid) || ' STORED'
       ELSE 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END) AS line
     FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
     ORDER BY c.relname, a.attnum`,
  );
  const constraints = await pool.query<{ table: string; line: string }>(
    `SELECT conrelid::regclass::text AS table,
       'CONSTRAINT ' || conname || ' ' || pg_get_constraintdef(oid) AS line
     FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1, conname`,
  );
  const options = await pool.query<{ table: string; options: string | null }>(
    `SELECT relname AS table, array_to_string(reloptions, ', ') AS options FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname`,
  );
  const indexes = await pool.query<{ line: string }>(
    `SELECT indexdef || ';' AS line FROM pg_indexes
     WHERE schemaname = 'public' AND indexname NOT IN (SELECT conname FROM pg_constraint)
     ORDER BY indexname`,
  );
  const tables = options.rows.map(({ table, options: storage }) => {
    const lines = [...columns.rows, ...constraints.rows]
      .filter((row) => row.table === table)
      .map((row) => `  ${row.line}`);
    const suffix = storage === null ? '' : ` WITH (${storage})`;
    return `CREATE TABLE ${table} (\n${lines.join(',\n')}\n)${suffix};`;
  });
  return `${[...tables, indexes.rows.map((row) => row.line).join('\n')].join('\n\n')}\n`;
}

/** The tables of the client's ClickHouse database as SQL, without the database's name. */
export async function clickhouseStructure(
  clickhouse: ClickHouseClient,
  database: string,
): Promise<string> {
  const result = await clickhouse.query({
    query: `SELECT create_table_query AS line FROM system.tables
      WHERE database = currentDatabase() ORDER BY name`,
    format: 'JSONEachRow',
  });
  const rows = await result.json<{ line: string }>();
  const tables = rows.map((row) =>
    row.line
      .replaceAll(`${database}.`, '')
      // One line a column, so that a changed column is one changed line.
      .replace(/ \((?=`)/, ' (\n  ')
      .replaceAll(/, (?=`|INDEX )/g, ',\n  ')
      .replace(/\) ENGINE/, '\n) ENGINE')
      .replaceAll(/ (PARTITION BY|ORDER BY|SETTINGS)/g, '\n$1'),
  );
  return `${tables.join(';\n\n')};\n`;
}
