import { ClickHouseError } from '@clickhouse/client';
import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { query } from './arguments.ts';
import type { CliContext, Run } from './context.ts';
import { type Cell, type ColumnPlan, formatRows, planColumns } from './table.ts';

/** Column widths come from this many rows. Later rows are printed as they arrive. */
const plannedRowsMax = 1_000;
const messageCharsMax = 400;

/** `core sql` */
export function addSqlCommand(program: Command, run: Run): void {
  program
    .command('sql')
    .description('Ask ClickHouse; the tables are usage and session_events')
    .argument('<query>', 'a query that only reads', query)
    .addHelpText(
      'after',
      `
Examples:
  core sql "SELECT node_id, sum(bytes_up), sum(bytes_down) FROM usage GROUP BY node_id"
  core sql "SELECT * FROM session_events ORDER BY occurred_at DESC LIMIT 10" --json`,
    )
    .action(
      run(async (context, _options, sql: string) => {
        try {
          await (context.json ? printJson(context, sql) : printTable(context, sql));
        } catch (thrown) {
          throw thrown instanceof ClickHouseError ? refusedQuery(thrown) : thrown;
        }
      }),
    );
}

/** Prints an array of row objects. It writes rows as they arrive, so an answer may have any size. */
async function printJson(context: CliContext, sql: string): Promise<void> {
  let opening = '[';
  for await (const rows of await ask(context, sql, 'JSONEachRow')) {
    const text = rows.map((row) => row.text).join(',');
    if (text === '') continue;
    await context.write(opening + text);
    opening = ',';
  }
  await context.write(opening === '[' ? '[]\n' : ']\n');
}

async function printTable(context: CliContext, sql: string): Promise<void> {
  let columns: string[] | undefined;
  let plan: ColumnPlan[] | undefined;
  let waiting: Cell[][] = [];
  const printWaiting = async (): Promise<void> => {
    if (columns === undefined) return;
    const heading = plan === undefined ? columns : undefined;
    plan ??= planColumns(columns, waiting);
    await context.write(formatRows(plan, waiting, heading));
    waiting = [];
  };
  for await (const rows of await ask(context, sql, 'JSONCompactEachRowWithNames')) {
    for (const row of rows) {
      const cells = row.json<Cell[]>();
      if (columns === undefined) columns = cells.map(String);
      else waiting.push(cells);
    }
    if (waiting.length >= plannedRowsMax) await printWaiting();
  }
  if (waiting.length > 0 || plan === undefined) await printWaiting();
}

/**
 * Asks with `readonly` 2, which refuses every write to a table but allows a query's own SETTINGS. It
 * prevents slips: an operator can write to ClickHouse without this command. The embedded server is
 * asked as its user `analyst`, who can only read anyway.
 */
async function ask(
  context: CliContext,
  sql: string,
  format: 'JSONEachRow' | 'JSONCompactEachRowWithNames',
) {
  const clickhouse = await context.analysis();
  const result = await clickhouse.query({
    query: sql,
    format,
    clickhouse_settings: {
      readonly: '2',
      output_format_json_quote_64bit_integers: format === 'JSONEachRow' ? 0 : 1,
    },
  });
  return result.stream();
}

/**
 * What ClickHouse says about the query, on one line with the name of the error. The message is cut,
 * because a syntax error lists everything that ClickHouse would have accepted.
 */
function refusedQuery(error: ClickHouseError): CoreError {
  const said = error.message.replaceAll(/\s+/g, ' ').trim();
  const message = said.length > messageCharsMax ? `${said.slice(0, messageCharsMax)}…` : said;
  const type = error.type === undefined ? '' : ` (${error.type})`;
  return new CoreError('INVALID_ARGUMENT', `ClickHouse: ${message}${type}`, { cause: error });
}
