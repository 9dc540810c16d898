import type { Command } from 'commander';
import { listRejected, listUnsettled } from '../spool/backlog.ts';
import { id, rowsMax } from './arguments.ts';
import type { Run } from './context.ts';
import { objectsText } from './table.ts';

/** `core segments …`; without a command it lists. */
export function addSegmentCommands(program: Command, run: Run): void {
  const segments = program
    .command('segments')
    .description('Segments that are sealed and not settled, and why')
    .addHelpText('after', '\nExamples:\n  core segments\n  core segments retry 1764000000123');

  segments
    .command('list', { isDefault: true })
    .description('Segments that are sealed and not settled (what `core segments` does)')
    .option('--max <rows>', 'at most this many', rowsMax, 1_000)
    .addHelpText('after', '\nExample:\n  core segments list --max 10')
    .action(
      run(async (context, options: { max: number }) => {
        const found = await listUnsettled(await context.postgres(), { rowsMax: options.max });
        context.print(found, objectsText(found, listColumns, 'Every segment is settled.'));
      }),
    );

  segments
    .command('retry')
    .description('Make a worker try a segment at once, even if it has failed before')
    .argument('<id>', 'id of the segment', id)
    .addHelpText('after', '\nExample:\n  core segments retry 1764000000123')
    .action(
      run(async (context, _options, segmentId: number) => {
        const { redisUrl, redisPrefix: prefix } = context.config.stores;
        const db = await context.postgres();
        await context.redis();
        // BullMQ takes a while to load, and no other command needs it.
        const { retrySegment } = await import('../load/worker.ts');
        const { stream } = await retrySegment({ db, redisUrl, prefix }, segmentId);
        context.print({ segmentId, stream, requested: true });
      }),
    );

  segments
    .command('rejected')
    .description('Rows that ClickHouse refused for their data, newest first')
    .option('--max <rows>', 'at most this many', rowsMax, 100)
    .addHelpText('after', '\nExample:\n  core segments rejected --json')
    .action(
      run(async (context, options: { max: number }) => {
        const found = await listRejected(await context.postgres(), { rowsMax: options.max });
        context.print(found, objectsText(found, rejectedColumns, 'No row was ever rejected.'));
      }),
    );
}

const listColumns = [
  'segmentId',
  'stream',
  'seq',
  'rows',
  'bytes',
  'attempts',
  'rejected',
  'sealedAt',
  'lastError',
] as const;

const rejectedColumns = ['rejectedAt', 'segmentId', 'kind', 'row', 'reason'] as const;
