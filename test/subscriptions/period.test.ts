import fc from 'fast-check';
import t from 'tap';
import {
  lastResetAt,
  nextResetAt,
  periodStart,
  type ResetPeriod,
} from '../../src/subscriptions/period.ts';

const at = (text: string): Date => new Date(text);

t.test(
  'in a month that is too short a period begins on the last day, and later ones do not move',
  async (t) => {
    const anchor = at('2027-01-31T22:30:15.250Z');
    const starts = [1, 2, 3, 4, 12, 13].map((n) => periodStart('month', anchor, n).toISOString());
    t.same(starts, [
      '2027-02-28T22:30:15.250Z',
      '2027-03-31T22:30:15.250Z',
      '2027-04-30T22:30:15.250Z',
      '2027-05-31T22:30:15.250Z',
      '2028-01-31T22:30:15.250Z',
      '2028-02-29T22:30:15.250Z',
    ]);
    t.same(periodStart('month', at('2027-01-15T00:00:00Z'), -13), at('2025-12-15T00:00:00Z'));
    t.same(periodStart('month', at('2024-02-29T00:00:00Z'), 12), at('2025-02-28T00:00:00Z'));
  },
);

t.test('days have 24 hours, even over a change of summer time', async (t) => {
  const anchor = at('2026-03-28T01:30:00Z');
  t.same(periodStart('day', anchor, 2), at('2026-03-30T01:30:00Z'));
  t.same(periodStart('week', anchor, 31), at('2026-10-31T01:30:00Z'));
});

t.test('the next reset', async (t) => {
  const anchor = at('2027-01-31T00:00:00Z');
  t.equal(nextResetAt('none', anchor, at('2027-02-01T00:00:00Z')), null);
  t.same(nextResetAt('month', anchor, at('2027-02-27T23:59:59Z')), at('2027-02-28T00:00:00Z'));
  t.same(nextResetAt('month', anchor, at('2027-02-28T00:00:00Z')), at('2027-03-31T00:00:00Z'));
  t.same(nextResetAt('day', anchor, anchor), at('2027-02-01T00:00:00Z'));
  t.same(nextResetAt('week', anchor, at('2026-06-01T00:00:00Z')), anchor, 'not before the anchor');
  t.same(lastResetAt('month', anchor, at('2027-05-30T00:00:00Z')), at('2027-04-30T00:00:00Z'));
});

t.test(
  'every time lies between its last reset and its next one, which are one period apart',
  async (t) => {
    const date = fc.date({
      min: at('2020-01-01T00:00:00Z'),
      max: at('2040-01-01T00:00:00Z'),
      noInvalidDate: true,
    });
    const period = fc.constantFrom<Exclude<ResetPeriod, 'none'>>('day', 'week', 'month');
    fc.assert(
      fc.property(period, date, date, (kind, anchor, now) => {
        const next = nextResetAt(kind, anchor, now);
        const last = lastResetAt(kind, anchor, now);
        if (next === null) return false;
        if (now < anchor) return next.getTime() === anchor.getTime();
        const days = (next.getTime() - last.getTime()) / 86_400_000;
        const [min, max] = { day: [1, 1], week: [7, 7], month: [28, 31] }[kind] as [number, number];
        return last <= now && now < next && days >= min && days <= max;
      }),
      { numRuns: 5_000 },
    );
    t.pass('5,000 times');
  },
);
