import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { tableText } from '../../src/cli/table.ts';
import { projectRoot } from '../../src/root.ts';
import { type Metric, notCompared } from './metric.ts';
import { type Results, readResults } from './results.ts';
import { median } from './statistics.ts';
import { changeText, checksText, metricKey, numberText } from './table.ts';

/** Two trees that are measured by turns: another commit, and this working tree. */
export interface Comparison {
  base: string;
  /** The base keeps its own measuring code. */
  ownBench: boolean;
  rounds: number;
  /** Arguments of each single run: benches and options. */
  args: readonly string[];
  say: (line: string) => void;
  signal: AbortSignal;
}

/** The comparison is about Core, so both trees are measured by the same code: these files. */
const measuring = [
  ...['bench/bench.ts', 'bench/measure', 'test/support/free-port.ts'],
  ...['bodies', 'client', 'each', 'ledger', 'options', 'random', 'world'].map(
    (name) => `test/harness/simulator/${name}.ts`,
  ),
];

/** A tree is built by its own scripts. A tree from before these existed gets this tree's. */
const building = ['bootstrap', 'build'].map((name) => `scripts/${name}.mjs`);

/** Benches that compare no commits stay out, with their file in bench/measure and their folder there. */
const left = notCompared
  .flatMap((name) => [`${name}.ts`, name])
  .map((name) => path.join('bench', 'measure', name));

/** The files of this tree, relative to its root, that another commit is measured with. */
export function measuringFiles(): string[] {
  const isFile = (name: string): boolean => statSync(path.join(projectRoot, name)).isFile();
  const within = (folder: string): string[] =>
    readdirSync(path.join(projectRoot, folder), { recursive: true, encoding: 'utf8' })
      .map((name) => path.join(folder, name))
      .filter(isFile);
  const isLeft = (file: string): boolean =>
    left.some((name) => file === name || file.startsWith(`${name}${path.sep}`));
  return measuring
    .flatMap((name) => (isFile(name) ? [name] : within(name)))
    .filter((file) => !isLeft(file));
}

/**
 * Checks `base` out into a temporary folder and builds it, with this tree's measuring code unless
 * `ownBench`. Then it runs the benches in both trees by turns, and prints medians and ratios.
 * @throws Error if there is no such commit, or if it does not build with this measuring code.
 */
export async function compareWith(options: Comparison): Promise<boolean> {
  const { base, ownBench, rounds, say, signal } = options;
  const dir = mkdtempSync(path.join(os.tmpdir(), 'core-bench-base-'));
  const tree = path.join(dir, 'tree');
  try {
    checkOut(base, tree, ownBench);
    say(`building ${base}`);
    await run(tree, ['scripts/build.mjs'], signal);
    const found: Record<'base' | 'here', Results[]> = { base: [], here: [] };
    for (let round = 1; round <= rounds; round += 1) {
      for (const side of ['base', 'here'] as const) {
        say(`round ${round} of ${rounds}, ${side === 'base' ? base : 'this tree'}`);
        const out = path.join(dir, `${side}-${round}.json`);
        const root = side === 'base' ? tree : projectRoot;
        // The exit code is 1 if a check failed. The results tell which.
        await run(root, ['dist/bench/bench.js', ...options.args, '--out', out], signal, [0, 1]);
        found[side].push(...readResults(out));
      }
    }
    if (found.base.length < rounds || found.here.length < rounds) {
      throw new Error('some runs ended without results; their output is above');
    }
    process.stdout.write(comparisonTable(base, found.base, found.here));
    const checks = [...found.base, ...found.here].flatMap((results) => results.checks);
    process.stdout.write(checksText(checks));
    return checks.every(({ passed }) => passed);
  } finally {
    rmSync(dir, { recursive: true, force: true });
    git('worktree', 'prune');
  }
}

/** One line a figure: the medians of both sides, and how the second differs. */
export function comparisonTable(
  base: string,
  before: readonly Results[],
  after: readonly Results[],
): string {
  const valuesOf = (runs: readonly Results[]): Map<string, number[]> => {
    const values = new Map<string, number[]>();
    for (const metric of runs.flatMap(({ metrics }) => metrics)) {
      const key = metricKey(metric);
      values.set(key, [...(values.get(key) ?? []), metric.value]);
    }
    return values;
  };
  const [left, right] = [valuesOf(before), valuesOf(after)];
  const rows = (after[0]?.metrics ?? []).flatMap((metric: Metric) => {
    const old = left.get(metricKey(metric));
    const now = right.get(metricKey(metric));
    if (old === undefined || now === undefined) return [];
    const [a, b] = [median(old), median(now)];
    const ratio = a === 0 ? '' : `${numberText(b / a)} times`;
    const texts = [numberText(a), numberText(b), metric.unit, ratio, changeText(b, a)];
    return [[metric.bench, metric.name, ...texts, betterText(metric, a, b)]];
  });
  return tableText(
    ['bench', 'figure', base, 'this tree', 'unit', 'ratio', 'change', 'better'],
    rows,
  );
}

function betterText({ better }: Metric, before: number, after: number): string {
  if (better === 'none' || before === after) return '';
  return after > before === (better === 'higher') ? 'yes' : 'no';
}

function checkOut(base: string, tree: string, ownBench: boolean): void {
  try {
    git('worktree', 'add', '--detach', tree, base);
  } catch (cause) {
    throw new Error(`${base} cannot be checked out: is it a commit of this repository?`, { cause });
  }
  if (!ownBench) replaceBench(tree);
  const lock = (root: string): string => readFileSync(path.join(root, 'package-lock.json'), 'utf8');
  if (lock(tree) === lock(projectRoot)) {
    symlinkSync(path.join(projectRoot, 'node_modules'), path.join(tree, 'node_modules'));
  }
}

function replaceBench(tree: string): void {
  // The base's own tests may not fit this tree's measuring code, and a comparison needs none of them.
  for (const folder of ['bench', 'test']) {
    rmSync(path.join(tree, folder), { recursive: true, force: true });
  }
  const missing = building.filter((name) => !existsSync(path.join(tree, name)));
  for (const file of [...measuringFiles(), ...missing]) {
    cpSync(path.join(projectRoot, file), path.join(tree, file));
  }
}

function git(...args: string[]): void {
  execFileSync('git', args, { cwd: projectRoot, stdio: 'pipe' });
}

/** Runs a program of a tree. Its output goes to stderr, since stdout is for the table alone. */
async function run(
  root: string,
  args: readonly string[],
  signal: AbortSignal,
  codes: readonly number[] = [0],
): Promise<void> {
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 2, 2] });
  const stop = (): void => void child.kill('SIGTERM');
  signal.addEventListener('abort', stop, { once: true });
  // A second signal ends this process at once. The run must stop its Core then, too.
  process.once('exit', stop);
  const [code] = (await once(child, 'exit')) as [number | null];
  signal.removeEventListener('abort', stop);
  process.off('exit', stop);
  signal.throwIfAborted();
  if (code === null || !codes.includes(code)) {
    throw new Error(`${args[0]} ended with code ${code} in ${path.basename(root)}`);
  }
}
