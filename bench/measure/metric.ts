/** The benches, in the order of a run. */
export const benchNames = [
  'micro',
  'accept',
  'e2e',
  'latency',
  'flatness',
  'config',
  'storage',
  'limits',
  'late',
  'peers',
  'republish',
  'groups',
  'schema',
] as const;
export type BenchName = (typeof benchNames)[number];

/** Benches that run only if named: they compare Core with others, or designs with each other. */
export const namedOnly: readonly BenchName[] = ['peers', 'republish', 'groups', 'schema'];

/** Benches that cannot compare two commits: see `later` in run.ts. */
export const notCompared: readonly BenchName[] = ['limits', ...namedOnly];

/** A figure has reached its target at `min` or more, or at `max` or less. */
export type Target = { min: number } | { max: number };

/** One figure. Its name is unique within its bench and stays the same from run to run. */
export interface Metric {
  bench: BenchName;
  name: string;
  value: number;
  unit: string;
  /** Which way is better; `none` for figures that only describe the run. */
  better: 'higher' | 'lower' | 'none';
  target?: Target;
}

/** A check of the data that a bench sent. If it fails, the bench's figures count for nothing. */
export interface Check {
  bench: BenchName;
  name: string;
  passed: boolean;
  detail: string;
}

/** Points of one line of a plot. */
export interface Series {
  bench: BenchName;
  plot: 'batch' | 'peers' | 'nodes-throughput' | 'nodes-cpu' | 'backlog';
  label: string;
  points: { x: number; y: number }[];
}

/** What a bench hands back. */
export interface Measured {
  metrics: Metric[];
  checks: Check[];
  series: Series[];
  /** Tables of another form and notes, to be read with the figures. Printed, not kept. */
  texts: string[];
}

/** The batch sizes to measure: those that the bench knows, or the one of `--entries`. */
export function sizesOf(
  { entries }: Pick<BenchOptions, 'entries'>,
  known: readonly number[],
): readonly number[] {
  return entries === undefined ? known : [entries];
}

/** What a bench is given. */
export interface BenchOptions {
  quick: boolean;
  /** Repetitions. A figure is their median. */
  rounds: number;
  /** Length of the sustained runs. */
  seconds: number;
  nodes: number;
  subscriptions: number;
  connections: number;
  /** Entries a request of accept, e2e, latency and peers; undefined for every size they know. */
  entries: number | undefined;
  /** Entries a second. Without it, e2e finds the highest rate, and latency sends half of that. */
  rate: number | undefined;
  /** Settings of the measured Core, by their names in .env.example. */
  settings: Record<string, string>;
  /** Folder for V8 CPU profiles of api and worker. They cost some speed. */
  profileDir: string | undefined;
  /** Progress, a line at a time. */
  say: (line: string) => void;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
  /** What the benches before this one measured. */
  earlier: readonly Metric[];
}

export function emptyMeasured(): Measured {
  return { metrics: [], checks: [], series: [], texts: [] };
}

/** True if the metric has no target or has reached it. */
export function isReached({ value, target }: Pick<Metric, 'value' | 'target'>): boolean {
  if (target === undefined) return true;
  return 'min' in target ? value >= target.min : value <= target.max;
}

/** The value of a metric; undefined if it was not measured. */
export function measuredValue(
  metrics: readonly Metric[],
  bench: BenchName,
  name: string,
): number | undefined {
  return metrics.find((metric) => metric.bench === bench && metric.name === name)?.value;
}
