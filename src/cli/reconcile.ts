import type { Command } from 'commander';
import { differencesLeftOut, type Reconciliation, reconcile } from '../audit/reconcile.ts';
import { date } from './arguments.ts';
import type { Run } from './context.ts';
import { fieldsText, tableText } from './table.ts';

/** `core reconcile` */
export function addReconcileCommand(program: Command, run: Run): void {
  program
    .command('reconcile')
    .description('Compare segments with rows, and rows with counters; exit code 1 if they differ')
    .option('--since <date>', 'only segments settled since then, and no counters', date)
    .addHelpText(
      'after',
      '\nIt may run at any time, even while Core runs.\n\nExamples:\n  core reconcile\n  core reconcile --since 2026-11-01T00:00:00Z --json',
    )
    .action(
      run(async (context, options: { since?: Date }) => {
        const found = await reconcile(
          { pool: await context.postgres(), clickhouse: await context.clickhouse() },
          { since: options.since ?? null, signal: new AbortController().signal },
        );
        // Awaited, because the process ends at once after a command with an exit code of its own.
        await context.write(context.json ? `${JSON.stringify(found)}\n` : foundText(found));
        return found.differences === 0 ? undefined : { exitCode: 1 };
      }),
    );
}

function foundText(found: Reconciliation): string {
  const summary = fieldsText({
    segments: `${found.segments} compared with their rows`,
    ...(found.prunedSegments
      ? { pruned: `${found.prunedSegments} segments compared with their rows together` }
      : {}),
    subscriptions:
      found.subscriptions === null
        ? 'not compared: counters have no times, so --since cannot compare them'
        : `${found.subscriptions} compared with the sums of their rows`,
    differences: found.differences,
  });
  if (found.differences === 0) return summary;
  const rows = found.details.map((difference) => {
    if (difference.what === 'subscription') {
      const { subscriptionId, counterUp, counterDown, rowsUp, rowsDown } = difference;
      return [
        `subscription ${subscriptionId}`,
        `counters: ${counterUp} up, ${counterDown} down`,
        `rows: ${rowsUp} up, ${rowsDown} down`,
      ];
    }
    if (difference.what === 'pruned-segments') {
      const { upToId, table, expectedRows, foundRows } = difference;
      return [
        `pruned segments up to ${upToId} in ${table}`,
        `${expectedRows} rows settled`,
        `${foundRows} rows in ClickHouse`,
      ];
    }
    const { what, segmentId, table, expectedRows, foundRows } = difference;
    const expected =
      what === 'segment' ? `${expectedRows} rows settled` : 'unknown to Postgres: no rows';
    return [`segment ${segmentId} in ${table}`, expected, `${foundRows} rows in ClickHouse`];
  });
  const leftOut = differencesLeftOut(found);
  const more = leftOut === 0 ? '' : `and ${leftOut} more\n`;
  return `${summary}${tableText(['what', 'expected', 'found'], rows)}${more}`;
}
