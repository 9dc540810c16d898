import assert from 'node:assert/strict';

/** How often a subscription's used traffic is set back to zero. */
export const resetPeriods = ['none', 'day', 'week', 'month'] as const;
export type ResetPeriod = (typeof resetPeriods)[number];

const dayMs = 86_400_000;

/**
 * When the n-th period after the anchor begins, in UTC. Days and weeks are multiples of 24 hours,
 * since UTC has no summer time. A month begins on the anchor's day of the month and time of day, or on
 * the last day of a month that is too short. Months are counted from the anchor itself, so that a short
 * month does not move the later ones: Jan 31, Feb 28, Mar 31.
 */
export function periodStart(
  period: Exclude<ResetPeriod, 'none'>,
  anchorAt: Date,
  count: number,
): Date {
  assert(Number.isSafeInteger(count), 'a whole number of periods');
  if (period === 'day') return new Date(anchorAt.getTime() + count * dayMs);
  if (period === 'week') return new Date(anchorAt.getTime() + count * 7 * dayMs);
  const months = anchorAt.getUTCFullYear() * 12 + anchorAt.getUTCMonth() + count;
  const year = Math.floor(months / 12);
  const month = months - year * 12;
  // Day 0 of the next month is the last day of this one.
  const lastDay = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
  const timeOfDayMs = ((anchorAt.getTime() % dayMs) + dayMs) % dayMs;
  return new Date(Date.UTC(year, month, Math.min(anchorAt.getUTCDate(), lastDay)) + timeOfDayMs);
}

/** The number of the period that this time is in; negative before the anchor. */
function periodAt(period: Exclude<ResetPeriod, 'none'>, anchorAt: Date, at: Date): number {
  if (period === 'day') return Math.floor((at.getTime() - anchorAt.getTime()) / dayMs);
  if (period === 'week') return Math.floor((at.getTime() - anchorAt.getTime()) / (7 * dayMs));
  const months =
    (at.getUTCFullYear() - anchorAt.getUTCFullYear()) * 12 +
    (at.getUTCMonth() - anchorAt.getUTCMonth());
  return periodStart(period, anchorAt, months) > at ? months - 1 : months;
}

/**
 * The first reset after this time; null if the period is `none`. Nothing is reset before the anchor, so
 * an anchor in the future is itself the first reset.
 */
export function nextResetAt(period: ResetPeriod, anchorAt: Date, after: Date): Date | null {
  if (period === 'none') return null;
  const next = periodStart(period, anchorAt, periodAt(period, anchorAt, after) + 1);
  return next > anchorAt ? next : anchorAt;
}

/** The latest reset that is due at this time; the anchor if none is due. */
export function lastResetAt(period: Exclude<ResetPeriod, 'none'>, anchorAt: Date, at: Date): Date {
  return periodStart(period, anchorAt, Math.max(0, periodAt(period, anchorAt, at)));
}
