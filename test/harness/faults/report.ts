import { fieldsText } from '../../../src/cli/table.ts';
import { victims } from './killable.ts';
import type { Violation, ViolationKind } from './oracle.ts';
import type { RoundResult } from './round.ts';

/** Sums over all rounds, for the final table. */
export interface Summary {
  seed: number;
  rounds: number;
  kills: Record<string, number>;
  killsByPlace: Record<string, number>;
  holds: number;
  missed: number;
  requests: number;
  attempts: number;
  /** By status; 0 counts attempts without an answer. */
  answers: Record<number, number>;
  acked: number;
  unknown: number;
  undelivered: number;
  rows: number;
  violations: Record<ViolationKind, number>;
  peakBytes: { api: number; worker: number };
  seconds: number;
}

export function createSummary(seed: number): Summary {
  return {
    seed,
    rounds: 0,
    kills: Object.fromEntries(victims.map((victim) => [victim, 0])),
    killsByPlace: {},
    holds: 0,
    missed: 0,
    requests: 0,
    attempts: 0,
    answers: {},
    acked: 0,
    unknown: 0,
    undelivered: 0,
    rows: 0,
    violations: {
      lost: 0,
      doubled: 0,
      partial: 0,
      wrong: 0,
      counter: 0,
      segment: 0,
      job: 0,
      other: 0,
    },
    peakBytes: { api: 0, worker: 0 },
    seconds: 0,
  };
}

export function addRound(summary: Summary, result: RoundResult): void {
  summary.rounds += 1;
  for (const { victim, at } of result.kills) {
    summary.kills[victim] = (summary.kills[victim] ?? 0) + 1;
    summary.killsByPlace[at] = (summary.killsByPlace[at] ?? 0) + 1;
  }
  summary.holds += result.holds;
  summary.missed += result.missed;
  summary.requests += result.posts.length;
  for (const { outcome } of result.posts) summary[outcome] += 1;
  summary.rows += result.rows;
  addViolations(summary, result.violations);
}

export function addViolations(summary: Summary, violations: readonly Violation[]): void {
  for (const { kind } of violations) summary.violations[kind] += 1;
}

export function isClean(summary: Summary): boolean {
  return Object.values(summary.violations).every((count) => count === 0);
}

/** The line that is printed when a round ends. */
export function roundLine(result: RoundResult, last: number): string {
  const faults = result.kills.map(({ victim, at }) => `${victim} at ${at}`);
  if (result.holds > 0) faults.push(`${result.holds} holds`);
  if (result.note !== undefined) faults.push(result.note);
  const acked = result.posts.filter((post) => post.outcome === 'acked').length;
  return (
    `round ${result.round}/${last}  ${(result.tookMs / 1_000).toFixed(1)} s  ` +
    `${acked} of ${result.posts.length} acked, ${result.rows} rows  ` +
    `${faults.join(', ') || 'no fault'}` +
    (result.violations.length === 0 ? '' : `  ${result.violations.length} VIOLATIONS`)
  );
}

export function summaryText(summary: Summary): string {
  const { violations } = summary;
  const mebibytes = (bytes: number): string => `${Math.round(bytes / 1_048_576)} MiB`;
  const entries = (counts: Record<string, number>): [string, string][] =>
    Object.entries(counts).map(([name, count]) => [name, String(count)]);
  const kills = Object.values(summary.kills).reduce((sum, count) => sum + count, 0);
  const rows: [string, string][] = [
    ['seed', String(summary.seed)],
    ['rounds', String(summary.rounds)],
    ['seconds', summary.seconds.toFixed(0)],
    ['kills', String(kills)],
    ...entries(summary.kills).map(([name, count]): [string, string] => [`  ${name}`, count]),
    ['holds', String(summary.holds)],
    ['faults that did not happen', String(summary.missed)],
    ['requests', String(summary.requests)],
    ['  attempts', String(summary.attempts)],
    ...Object.entries(summary.answers).map(([status, count]): [string, string] => [
      status === '0' ? '    unanswered' : `    answered ${status}`,
      String(count),
    ]),
    ['  acked', String(summary.acked)],
    ['  without an answer', String(summary.unknown)],
    ['  turned away', String(summary.undelivered)],
    ['rows', String(summary.rows)],
    ['lost', String(violations.lost)],
    ['doubled', String(violations.doubled)],
    ['partial', String(violations.partial)],
    ['wrong', String(violations.wrong)],
    ['counter differences', String(violations.counter)],
    ['segments not settled', String(violations.segment)],
    ['failed jobs', String(violations.job)],
    ['other', String(violations.other)],
    ['peak memory api', mebibytes(summary.peakBytes.api)],
    ['peak memory worker', mebibytes(summary.peakBytes.worker)],
  ];
  const places = entries(summary.killsByPlace).sort(([a], [b]) => (a < b ? -1 : 1));
  return [
    fieldsText(Object.fromEntries(rows)),
    'kills by place',
    fieldsText(Object.fromEntries(places.map(([place, count]) => [`  ${place}`, count]))),
  ].join('\n');
}
