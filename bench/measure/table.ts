import { tableText } from '../../src/cli/table.ts';
import { type Check, isReached, type Metric, type Target } from './metric.ts';

/** A figure of an earlier run, to compare with. */
export interface Before {
  value: number;
  /** When it was measured, ISO 8601. */
  date: string;
}

/** One line a figure, with its target and its change against the newest kept run. */
export function metricsTable(
  metrics: readonly Metric[],
  before: ReadonlyMap<string, Before>,
): string {
  const rows = metrics.map((metric) => {
    const last = before.get(metricKey(metric));
    return [
      metric.bench,
      metric.name,
      numberText(metric.value),
      metric.unit,
      targetText(metric.target),
      reachedText(metric),
      last === undefined ? '' : changeText(metric.value, last.value),
    ];
  });
  const columns = ['bench', 'figure', 'value', 'unit', 'target', 'reached', 'against last'];
  return tableText(columns, rows);
}

/** One line for each failed check, or one line if all passed. Empty if there were no checks. */
export function checksText(checks: readonly Check[]): string {
  if (checks.length === 0) return '';
  const failed = checks.filter(({ passed }) => !passed);
  if (failed.length === 0) return `${checks.length} checks of the data, all passed\n`;
  const lines = failed.map(({ bench, name, detail }) => `FAILED  ${bench}: ${name}: ${detail}\n`);
  return `${lines.join('')}${failed.length} of ${checks.length} checks failed: their figures count for nothing\n`;
}

/** Finds the same metric in another run. */
export function metricKey({ bench, name }: Pick<Metric, 'bench' | 'name'>): string {
  return `${bench} / ${name}`;
}

/** Three significant digits, or an integer with its thousands set apart. */
export function numberText(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}

function targetText(target: Target | undefined): string {
  if (target === undefined) return '';
  return 'min' in target ? `>= ${numberText(target.min)}` : `<= ${numberText(target.max)}`;
}

function reachedText(metric: Metric): string {
  if (metric.target === undefined) return '';
  return isReached(metric) ? 'yes' : 'NO';
}

/** `+12 %`, or an empty text if `before` is 0. */
export function changeText(value: number, before: number): string {
  if (before === 0) return '';
  const percent = ((value - before) / before) * 100;
  return `${percent >= 0 ? '+' : ''}${Number(percent.toFixed(1))} %`;
}
