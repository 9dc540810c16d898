import type { Queue } from 'bullmq';
import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { webhookTimeoutMs } from '../webhooks/post.ts';
import {
  listDeadLetters,
  retryDeadLetter,
  retryDeadLetters,
  type WebhookJob,
  webhookQueueName,
} from '../webhooks/queue.ts';
import { sendTestEvent, type TestOutcome } from '../webhooks/send.ts';
import { id, rowsMax } from './arguments.ts';
import type { CliContext, Run } from './context.ts';
import { fieldsText, objectsText } from './table.ts';

/** `core webhook …` */
export function addWebhookCommands(program: Command, run: Run): void {
  const webhook = program
    .command('webhook')
    .description('The webhook: events that it never took (dead letters), and a test');

  webhook
    .command('list')
    .description('Events that Core has given up, newest first')
    .option('--max <rows>', 'at most this many', rowsMax, 100)
    .addHelpText('after', '\nExample:\n  core webhook list')
    .action(
      run(async (context, options: { max: number }) => {
        const found = await inQueue(context, (queue) =>
          listDeadLetters(queue, { rowsMax: options.max }),
        );
        context.print(found, objectsText(found, listColumns, 'There are no dead letters.'));
      }),
    );

  webhook
    .command('retry')
    .description('Send a dead letter again, with all of its attempts')
    .argument('[id]', 'id of the event', id)
    .option('--all', 'every dead letter')
    .addHelpText('after', '\nExamples:\n  core webhook retry 17\n  core webhook retry --all')
    .action(
      run(async (context, options: { all?: boolean }, eventId: number | undefined) => {
        if ((eventId === undefined) === (options.all !== true)) {
          throw new CoreError('INVALID_ARGUMENT', 'Give either the id of an event or --all');
        }
        const retried = await inQueue(context, async (queue) => {
          if (eventId === undefined) return retryDeadLetters(queue);
          await retryDeadLetter(queue, eventId);
          return 1;
        });
        context.print({ retried });
      }),
    );

  webhook
    .command('test')
    .description('Post a signed event of the kind test to CORE_WEBHOOK_URL and print the answer')
    .addHelpText('after', '\nExample:\n  core webhook test')
    .action(
      run(async (context) => {
        const { webhook } = context.config.events;
        if (webhook === undefined) {
          throw new CoreError(
            'INVALID_SETTINGS',
            'No webhook is set: set CORE_WEBHOOK_URL and CORE_WEBHOOK_SECRET to the values of the worker',
          );
        }
        const outcome = await sendTestEvent({ ...webhook, timeoutMs: webhookTimeoutMs });
        context.print(outcome, outcomeText(outcome));
        return outcome.delivered ? undefined : { exitCode: 1 };
      }),
    );
}

function outcomeText({ delivered, status, tookMs, answer, reason }: TestOutcome): string {
  return fieldsText({
    delivered,
    status: status ?? 'none',
    took: `${tookMs} ms`,
    ...(answer === null || answer === '' ? {} : { answer }),
    ...(reason === null ? {} : { reason }),
  });
}

/** Loads BullMQ only here, because it takes a while and few commands need it. */
async function inQueue<T>(
  context: CliContext,
  work: (queue: Queue<WebhookJob>) => Promise<T>,
): Promise<T> {
  const { redisUrl, redisPrefix: prefix } = context.config.stores;
  // Opened only to name Redis in one clear line if it is away.
  await context.redis();
  const { openQueue } = await import('../stores/bullmq.ts');
  const { queue, close } = await openQueue<WebhookJob>(webhookQueueName, { redisUrl, prefix });
  try {
    return await work(queue);
  } finally {
    await close();
  }
}

const listColumns = [
  'eventId',
  'at',
  'subscriptionId',
  'kind',
  'attempts',
  'failedAt',
  'lastError',
] as const;
