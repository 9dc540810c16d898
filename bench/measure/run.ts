import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { projectRoot } from '../../src/root.ts';
import { measureAccept } from './accept.ts';
import { measureConfig } from './config.ts';
import { measureEndToEnd } from './end-to-end.ts';
import { measureFlatness } from './flatness.ts';
import { measureLate } from './late.ts';
import { measureLatency } from './latency.ts';
import { type BenchName, type BenchOptions, emptyMeasured, type Measured } from './metric.ts';
import { measureMicro } from './micro.ts';
import { writePlots } from './plots.ts';
import { describeMachine, type Results, readBefore, resultsDir, writeResults } from './results.ts';
import { measureStorage } from './storage.ts';
import { checksText, metricsTable } from './table.ts';

type Measure = (options: BenchOptions) => Promise<Measured>;

const benches: Record<BenchName, Measure> = {
  micro: measureMicro,
  accept: measureAccept,
  e2e: measureEndToEnd,
  latency: measureLatency,
  flatness: measureFlatness,
  config: measureConfig,
  storage: measureStorage,
  limits: later('limits', 'measureLimits'),
  late: measureLate,
  peers: later('peers', 'measurePeers'),
  republish: later('republish', 'measureRepublish'),
  groups: later('groups', 'measureGroups'),
  schema: later('schema', 'measureSchema'),
};

/**
 * Loads a bench when it runs. It uses parts of Core or packages that an older commit may not have, so
 * `compare` leaves its files out of the other commit's tree.
 */
function later(file: string, name: string): Measure {
  return async (options) => {
    const loaded = (await import(new URL(`./${file}.js`, import.meta.url).href)) as Partial<
      Record<string, Measure>
    >;
    const measure = loaded[name];
    if (measure === undefined) throw new Error(`${file} has no ${name}`);
    return measure(options);
  };
}

/**
 * Runs the benches one after the other, each with a Core of its own, prints the table, and keeps the
 * results in bench/results (or writes them to `out` and keeps nothing).
 */
export async function runBenches(
  names: readonly BenchName[],
  options: BenchOptions,
  out: string | undefined,
): Promise<Results> {
  const { texts, ...all } = emptyMeasured();
  for (const [index, name] of names.entries()) {
    const say = (line: string): void =>
      options.say(`${name} (${index + 1} of ${names.length}): ${line}`);
    const measure = benches[name];
    const measured = await measure({ ...options, say, earlier: all.metrics });
    all.metrics.push(...measured.metrics);
    all.checks.push(...measured.checks);
    all.series.push(...measured.series);
    texts.push(...measured.texts);
  }
  const { quick, rounds, seconds, nodes, subscriptions, connections, settings } = options;
  const results: Results = {
    date: new Date().toISOString(),
    quick,
    machine: describeMachine(),
    options: { benches: names, rounds, seconds, nodes, subscriptions, connections, settings },
    ...all,
  };
  const before = out === undefined ? readBefore(quick) : new Map();
  process.stdout.write(texts.map((text) => `${text}\n`).join(''));
  process.stdout.write(metricsTable(results.metrics, before));
  process.stdout.write(checksText(results.checks));
  if (out !== undefined) {
    writeFileSync(out, `${JSON.stringify(results, null, 2)}\n`);
    return results;
  }
  const files = [writeResults(results), ...writePlots(results.series, quick, resultsDir)];
  const kept = files.map((file) => path.relative(projectRoot, file));
  process.stdout.write(`kept in ${kept.join(', ')}\n`);
  return results;
}

/** True if every check passed. Otherwise the figures count for nothing. */
export function isGood({ checks }: Results): boolean {
  return checks.every(({ passed }) => passed);
}
