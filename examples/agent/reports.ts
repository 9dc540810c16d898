import type { NodeConfig } from '../../src/contract/node-config.ts';
import type { Logger } from '../../src/log.ts';
import type { Answer, CoreClient } from './client.ts';

/** What the agent tells Core about the node's configuration. */
export type Report =
  | { kind: 'applied'; revision: number }
  | {
      kind: 'error';
      code: string;
      message: string;
      /** The revision that was refused. Undefined if the error is about something else. */
      revision: number | undefined;
      details?: Record<string, unknown>;
    };

const reportsMax = 16;

/**
 * What Core hears of a revision that runs. A service that this agent cannot run fails in every revision that
 * has it. So the agent reports the rest as applied, and then the error without a revision: Core rolls nothing
 * back, because changes of the other services must arrive. An operator sees the error until it is gone.
 */
export function reportsOf({ revision, services }: NodeConfig): Report[] {
  const applied: Report = { kind: 'applied', revision };
  if (services.mtproto === undefined) return [applied];
  const message =
    'services.mtproto needs telemt, which this agent does not run. Xray runs its part.';
  const code = 'SERVICE_UNSUPPORTED';
  const details = { service: 'mtproto' };
  return [applied, { kind: 'error', code, message, revision: undefined, details }];
}

/** Reports about the configuration that Core has not received yet, oldest first. */
export function createReports(client: Pick<CoreClient, 'applied' | 'error'>, log: Logger) {
  const waiting: Report[] = [];
  let last = '';
  return {
    put(report: Report): void {
      // The same report again says nothing new, for instance that a configuration fails once more.
      if (JSON.stringify(waiting.at(-1)) === JSON.stringify(report)) return;
      waiting.push(report);
      if (waiting.length > reportsMax) waiting.shift();
    },
    /** Makes the last report count as not sent: Core has not received it after all. */
    forgetLast(): void {
      last = '';
    },
    /** Sends reports until all are sent or Core does not answer. */
    async send(): Promise<void> {
      for (let report = waiting[0]; report !== undefined; report = waiting[0]) {
        const text = JSON.stringify(report);
        if (text !== last) {
          const answer = await sendReport(client, report);
          if (answer.kind === 'away') return;
          if (answer.kind === 'refused') log.error({ answer, report }, 'Core refused a report');
        }
        last = text;
        if (waiting[0] === report) waiting.shift();
      }
    },
  };
}

function sendReport(
  client: Pick<CoreClient, 'applied' | 'error'>,
  report: Report,
): Promise<Answer<unknown>> {
  const { revision } = report;
  if (report.kind === 'applied') return client.applied({ revision: report.revision });
  return client.error({
    message: report.message,
    code: report.code,
    details: { ...report.details, ...(revision === undefined ? {} : { revision }) },
  });
}
