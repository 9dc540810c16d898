import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { projectRoot } from '../../src/root.ts';
import type { Check, Metric, Series } from './metric.ts';
import { type Before, metricKey } from './table.ts';

/** A run's file in bench/results. */
export interface Results {
  /** When the run ended, ISO 8601. */
  date: string;
  quick: boolean;
  machine: Machine;
  /** The options of the run. */
  options: Record<string, unknown>;
  metrics: Metric[];
  checks: Check[];
  series: Series[];
}

/** What decides a machine's figures, and nothing that identifies the machine. */
interface Machine {
  cores: number;
  processor: string;
  memoryBytes: number;
  system: string;
  node: string;
  /** The working tree's commit, with `+` if the tree has changes. */
  commit: string;
}

export const resultsDir = path.join(projectRoot, 'bench', 'results');

export function describeMachine(): Machine {
  return {
    cores: os.availableParallelism(),
    processor: os.cpus()[0]?.model.trim() ?? 'unknown',
    memoryBytes: os.totalmem(),
    system: `${os.platform()} ${os.arch()}`,
    node: process.versions.node,
    commit: readCommit(),
  };
}

function readCommit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: projectRoot, encoding: 'utf8', stdio: 'pipe' }).trim();
  try {
    const changed = git('status', '--porcelain', '--', 'src', 'assembly', 'redis', 'postgres');
    return `${git('rev-parse', '--short=12', 'HEAD')}${changed === '' ? '' : '+'}`;
  } catch {
    // This is not a git checkout.
    return 'unknown';
  }
}

/**
 * Writes the results to a file that is named by the date. A second file of a day has a number after the
 * date. The name of a quick run's file says so, and git ignores it.
 */
export function writeResults(results: Results, dir: string = resultsDir): string {
  mkdirSync(dir, { recursive: true });
  const base = `${results.date.slice(0, 10)}${results.quick ? '-quick' : ''}`;
  let file = path.join(dir, `${base}.json`);
  for (let number = 2; existsSync(file); number += 1) {
    file = path.join(dir, `${base}-${number}.json`);
  }
  writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`);
  return file;
}

/**
 * The newest kept value of each metric. Quick runs are compared with quick runs only. Files that are
 * no results are ignored.
 */
export function readBefore(quick: boolean, dir: string = resultsDir): Map<string, Before> {
  const before = new Map<string, Before>();
  for (const { date, metrics } of readKept(quick, dir)) {
    for (const metric of metrics) before.set(metricKey(metric), { value: metric.value, date });
  }
  return before;
}

/** The kept runs of one kind, oldest first. */
export function readKept(quick: boolean, dir: string = resultsDir): Results[] {
  if (!existsSync(dir)) return [];
  const kept = readdirSync(dir)
    .filter((name) => name.endsWith('.json'))
    .flatMap((name) => readResults(path.join(dir, name)));
  return kept
    .filter((results) => results.quick === quick)
    .sort((left, right) => (left.date < right.date ? -1 : 1));
}

export function readResults(file: string): Results[] {
  try {
    const found = JSON.parse(readFileSync(file, 'utf8')) as Partial<Results>;
    return Array.isArray(found.metrics) && typeof found.date === 'string' ? [found as Results] : [];
  } catch {
    return [];
  }
}
