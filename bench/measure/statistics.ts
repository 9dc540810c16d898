import assert from 'node:assert/strict';

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  assert(values.length > 0, 'a median needs a value');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

export function mean(values: readonly number[]): number {
  assert(values.length > 0, 'a mean needs a value');
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The smallest value that is at least as large as `share` of all values (nearest rank). */
export function percentile(values: readonly number[], share: number): number {
  assert(values.length > 0, 'a percentile needs a value');
  assert(share > 0 && share <= 1);
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil(share * sorted.length) - 1] as number;
}

/** Change of y for each unit of x, by least squares; 0 if all points share one x. */
export function slope(points: readonly { x: number; y: number }[]): number {
  if (points.length === 0) return 0;
  const meanX = mean(points.map(({ x }) => x));
  const meanY = mean(points.map(({ y }) => y));
  let covariance = 0;
  let variance = 0;
  for (const { x, y } of points) {
    covariance += (x - meanX) * (y - meanY);
    variance += (x - meanX) ** 2;
  }
  return variance === 0 ? 0 : covariance / variance;
}

/** (largest - smallest) / smallest. */
export function spread(values: readonly number[]): number {
  assert(values.length > 0, 'a spread needs a value');
  const smallest = Math.min(...values);
  return smallest === 0 ? Number.POSITIVE_INFINITY : (Math.max(...values) - smallest) / smallest;
}
