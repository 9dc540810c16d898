import type { RecordableHistogram } from 'node:perf_hooks';
import type { Agent } from './agent.ts';
import { differenceLine } from './check.ts';
import type { Comparison } from './comparison.ts';
import type { Ledger } from './ledger.ts';
import { latencyMs, table } from './progress.ts';
import type { Settled } from './until-settled.ts';

/** What the report of a run is made from. */
export interface Outcome {
  ledger: Ledger;
  latencyUs: RecordableHistogram;
  settled: Settled;
  comparison: Comparison;
  agents: readonly Agent[];
  /** Seconds that the agents ran. Set-up and checks do not count. */
  ranSeconds: number;
}

const differencesShownMax = 20;

/** The number of differences: answers that the contract forbids and unsettled rows count, too. */
function differenceCount(outcome: Outcome): number {
  const { unexpected } = outcome.ledger;
  return (
    outcome.comparison.differences.length +
    (unexpected.count - unexpected.first.length) +
    (outcome.settled.isSettled ? 0 : 1)
  );
}

/** Decides the exit code. A run that acked nothing proves nothing. */
export function isGood(outcome: Outcome): boolean {
  return differenceCount(outcome) === 0 && outcome.ledger.tally.ackedRequests > 0;
}

/** The final table and, last, the line that starts with `fleet:`. */
export function reportText(outcome: Outcome): string {
  const { ledger, latencyUs, settled, comparison, ranSeconds } = outcome;
  const { tally } = ledger;
  const { usage, session, outbound } = comparison.totals;
  const rows: [string, string][] = [
    ['requests', `${tally.attempts} (${counts(tally.requestsByKind)})`],
    ['answers', counts(tally.answersByStatus)],
    ['unanswered', `${tally.unanswered} (${tally.cuts} cut on purpose)`],
    ['retries', `${tally.retries} (and ${tally.duplicates} posts sent twice on purpose)`],
    ['posts acked', `${tally.ackedRequests} with ${tally.ackedRows} entries`],
    ['posts unknown', `${tally.unknownRequests}, of which ${comparison.unknownStored} were stored`],
    ['posts undelivered', String(tally.undelivered)],
    ['refusals provoked', String(tally.probes)],
    ['nodes', nodesLine(outcome.agents)],
    ['latency', `p50 ${latencyMs(latencyUs, 50)} ms, p99 ${latencyMs(latencyUs, 99)} ms`],
    [
      'settled',
      settled.isSettled ? `after ${seconds(settled.waitedMs)} s` : `no: ${settled.missing}`,
    ],
    ['usage rows', both(usage.expected.rows, usage.found.rows)],
    ['usage bytes up', both(usage.expected.bytesUp, usage.found.bytesUp)],
    ['usage bytes down', both(usage.expected.bytesDown, usage.found.bytesDown)],
    ['session events', both(session.expected.rows, session.found.rows)],
    ['outbound bytes up', both(outbound.expected.bytesUp, outbound.found.bytesUp)],
    ['outbound bytes down', both(outbound.expected.bytesDown, outbound.found.bytesDown)],
    ['counters compared', String(comparison.countersCompared)],
    ['differences', String(differenceCount(outcome))],
  ];
  const lines = [table(rows), ...differenceLines(outcome)];
  const summary =
    `${tally.ackedRows} entries in ${tally.ackedRequests} posts acked in ` +
    `${Math.round(ranSeconds)} s, every one stored once`;
  if (isGood(outcome)) lines.push(`fleet: OK ${summary}`);
  else if (tally.ackedRequests === 0) lines.push('fleet: nothing was acked');
  else lines.push(`fleet: ${differenceCount(outcome)} differences`);
  return lines.join('\n');
}

function differenceLines(outcome: Outcome): string[] {
  const { settled, comparison } = outcome;
  const lines = comparison.differences.map(differenceLine);
  if (!settled.isSettled) lines.unshift(`not settled in time: ${settled.missing}`);
  const more = differenceCount(outcome) - Math.min(lines.length, differencesShownMax);
  const shown = lines.slice(0, differencesShownMax).map((line) => `  - ${line}`);
  return more > 0 ? [...shown, `  - and ${more} more`] : shown;
}

function nodesLine(agents: readonly Agent[]): string {
  const sum = (of: (agent: Agent) => number): number =>
    agents.reduce((total, agent) => total + of(agent), 0);
  const registered = sum((agent) => (agent.authKey === '' ? 0 : 1));
  const synced = sum((agent) => (agent.config.applied === undefined ? 0 : 1));
  const pulls = sum((agent) => agent.config.pulls);
  const notModified = sum((agent) => agent.config.notModified);
  return (
    `${agents.length}, ${registered} registered, ${synced} synced; ` +
    `config pulled ${pulls} times, not modified ${notModified} times`
  );
}

function counts(of: ReadonlyMap<string | number, number>): string {
  const sorted = [...of].sort(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([name, count]) => `${name} ${count}`).join(', ') || 'none';
}

function both(expected: bigint, found: bigint): string {
  return `${expected} expected, ${found} found`;
}

function seconds(ms: number): string {
  return (ms / 1_000).toFixed(1);
}

/** The same as one JSON value. Sums are strings, since they may be over 2^53. */
export function reportJson(outcome: Outcome): string {
  const { ledger, latencyUs, settled, comparison, ranSeconds } = outcome;
  const { requestsByKind, answersByStatus, ...tally } = ledger.tally;
  const value = {
    ok: isGood(outcome),
    ranSeconds,
    ...tally,
    requestsByKind: Object.fromEntries(requestsByKind),
    answersByStatus: Object.fromEntries(answersByStatus),
    latencyMs: { p50: latencyUs.percentile(50) / 1_000, p99: latencyUs.percentile(99) / 1_000 },
    settled,
    unknownStored: comparison.unknownStored,
    totals: comparison.totals,
    countersCompared: comparison.countersCompared,
    differenceCount: differenceCount(outcome),
    differences: differenceLines(outcome).map((line) => line.slice('  - '.length)),
  };
  return JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? String(part) : part));
}
