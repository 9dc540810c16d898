import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { projectRoot } from '../../src/root.ts';
import type { Check, Metric, Series } from './metric.ts';
import { type Before, metricKey } from './table.ts';

/** What a run leaves in bench/results. */
export interface Results {
  /** When the run ended, ISO 8601. */
  date: string;
  quick: boolean;
  machine: Machine;
  /** How it was run, as far as it hangs on options. */
  options: Record<string, unknown>;
  metrics: Metric[];
  checks: Check[];
  series: Series[];
}

/** What of the machine the figures hang on, and nothing that names it. */
interface Machine {
  cores: number;
  processor: string;
  memoryBytes: number;
  system: string;
  node: string;
  /** Of the working tree; with `+` where that has changes. */
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
    // Not a git checkout.
    return 'unknown';
  }
}

/**
 * Writes the results to a file named by the date, with a number behind it where there is one of that
 * day. Quick runs are marked in the name; git ignores them.
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
 * Of each metric the newest value kept by an earlier run of the same kind: quick runs are held
 * against quick ones only. A file that is not one of ours is passed over.
 */
export function readBefore(quick: boolean, dir: string = resultsDir): Map<string, Before> {
  const before = new Map<string, Before>();
  for (const { date, metrics } of readKept(quick, dir)) {
    for (const metric of metrics) before.set(metricKey(metric), { value: metric.value, date });
  }
  return before;
}

/** The runs of one kind that are kept, oldest first. */
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
