import { SingleBar } from 'cli-progress';
import { CoreError } from '../../errors.ts';
import {
  type ImportProgress,
  type ImportReport,
  importSubscriptions,
} from '../../subscriptions/import.ts';
import type { ImportLine } from '../../subscriptions/imported.ts';
import { printable } from '../../text.ts';
import type { CliContext } from '../context.ts';
import { fieldsText } from '../table.ts';

export interface RunOptions {
  keepGoing?: boolean;
  dryRun?: boolean;
}

interface ImportRun extends RunOptions {
  open: () => AsyncIterable<ImportLine>;
  /** What a line of the file is called: `line` or `user`. */
  noun: 'line' | 'user';
  /** Printed before the plan, and more for the JSON. */
  head?: { text: string; json: Record<string, unknown> };
  /** Whether an operator at a terminal is asked after the plan. */
  asks: boolean;
}

/** Checks and writes an import, and prints its plan and what came of it. */
export async function runImport(
  context: CliContext,
  run: ImportRun,
): Promise<{ exitCode: number } | undefined> {
  const pool = await context.postgres();
  const progress = createProgress(context);
  let isPlanShown = false;
  try {
    const report = await importSubscriptions(pool, run.open, {
      keepGoing: run.keepGoing === true,
      onProgress: progress.update,
      proceed: async (checked) => {
        progress.stop();
        if (run.dryRun === true || run.asks) {
          if (!context.json)
            await context.write(`${run.head?.text ?? ''}${planText(checked, run)}`);
          isPlanShown = true;
        }
        if (run.dryRun === true) return false;
        return !run.asks || checked.subscriptions === 0 || isConfirmed(context, checked);
      },
    });
    progress.stop();
    const isPossible = report.badLines === 0 || run.keepGoing === true;
    if (context.json) await context.write(`${JSON.stringify({ ...run.head?.json, ...report })}\n`);
    else if (run.dryRun !== true) {
      if (!isPlanShown)
        await context.write(badText(report, run.noun) + notesText(report, run.noun));
      await context.write(summaryText(report, run.noun));
    }
    const isWell = run.dryRun === true ? isPossible : report.imported || isNothingNew(report);
    return isWell ? undefined : { exitCode: 1 };
  } finally {
    progress.stop();
  }
}

/** A repeated import adds nothing, and that is no failure. */
function isNothingNew({ badLines, plan }: ImportReport): boolean {
  return badLines === 0 && plan.alreadyThere > 0;
}

async function isConfirmed(context: CliContext, checked: ImportReport): Promise<boolean> {
  const typed = await context.ask(
    `Import ${checked.subscriptions} subscriptions? Type yes to go on: `,
  );
  if (typed?.trim() === 'yes') return true;
  throw new CoreError('CONFIRMATION_NEEDED', 'Not confirmed: nothing was imported');
}

function planText(checked: ImportReport, { noun, keepGoing }: ImportRun): string {
  const { plan, subscriptions, badLines } = checked;
  const states = Object.entries(plan.states).filter(([, count]) => count > 0);
  const isStopped = badLines > 0 && keepGoing !== true;
  const fields = {
    'to add': isStopped
      ? `nothing, because of bad ${noun}s (--keep-going leaves them out)`
      : subscriptions,
    ...Object.fromEntries(states.map(([state, count]) => [`  ${state}`, count])),
    'used so far': `${plan.usedBytes} bytes`,
    // A line of a CSV file does not say which links there were.
    ...(noun === 'user' ? { 'links kept': plan.linksKept } : {}),
    'there already': plan.alreadyThere,
    [`bad ${noun}s`]: badLines,
  };
  return `${badText(checked, noun)}${notesText(checked, noun)}${fieldsText(fields)}`;
}

function badText(report: ImportReport, noun: string): string {
  const lines = report.bad.map(({ line, fault }) => `${noun} ${line}: ${printable(fault)}\n`);
  if (report.badLines > report.bad.length) {
    lines.push(`and ${report.badLines - report.bad.length} more\n`);
  }
  return lines.join('');
}

function notesText({ plan }: ImportReport, noun: string): string {
  const lines = plan.notes.flatMap(({ note, lines: count, first }) => [
    `${count} ${noun}${count === 1 ? '' : 's'}: ${printable(note)}\n`,
    ...first.map(({ line, user, detail }) => {
      const end = detail === undefined ? '' : ` (${printable(detail)})`;
      return `  ${noun} ${line}: ${printable(user)}${end}\n`;
    }),
    ...(count > first.length ? [`  and ${count - first.length} more\n`] : []),
  ]);
  return lines.join('');
}

function summaryText(report: ImportReport, noun: string): string {
  const { imported, subscriptions, users, links, badLines, plan } = report;
  const summary = {
    subscriptions,
    users,
    links,
    ...(plan.alreadyThere > 0 ? { 'there already': plan.alreadyThere } : {}),
    [`bad ${noun}s`]: badLines,
  };
  return fieldsText(imported ? summary : { imported: 'nothing', ...summary });
}

/** A progress bar at a terminal; none for a file or with `--json`. */
function createProgress(context: CliContext): {
  update: ((progress: ImportProgress) => void) | undefined;
  stop: () => void;
} {
  const { stderr } = context;
  if (context.json || (stderr as { isTTY?: boolean }).isTTY !== true) {
    return { update: undefined, stop: () => undefined };
  }
  const bar = new SingleBar({
    stream: stderr,
    format: '{phase} [{bar}] {value}/{total} lines, {duration_formatted}',
    clearOnComplete: true,
    hideCursor: true,
  });
  let phase: string | undefined;
  return {
    update(progress) {
      const total = progress.linesTotal ?? progress.lines;
      if (phase === undefined) bar.start(total, 0, { phase: progress.phase });
      phase = progress.phase;
      bar.setTotal(total);
      bar.update(progress.lines, { phase });
    },
    stop() {
      if (phase !== undefined) bar.stop();
      phase = undefined;
    },
  };
}
