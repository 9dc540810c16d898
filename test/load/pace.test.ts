import t from 'tap';
import { createPace, type Pace, type PaceBounds } from '../../src/load/pace.ts';

const bounds: PaceBounds = { segmentRowsMax: 1_000, groupMsMin: 0, groupBytesMax: 1_000 };

const small = { rows: 1, isLeftOver: false };
/** Much is coming in: an eighth of the largest segment. */
const busy = { rows: 125, isLeftOver: false };
/** There is more at once: over half of the largest segment. */
const large = { rows: 501, isLeftOver: false };
const leftOver = { rows: 1, isLeftOver: true };

/** A batch that was opened at 1,000 ms and changes this many counters. */
function batch(counters: number, bytes = 1) {
  return { openedAtMs: 1_000, bytes, sums: { size: counters } };
}

/** The pace after looks that found this, one each second from 1,000 ms on. */
function paceAfter(...looks: Parameters<Pace['noteLook']>[0][]): Pace {
  const pace = createPace(bounds);
  looks.forEach((found, index) => {
    pace.noteLook(found, 1_000 * (index + 1));
  });
  return pace;
}

t.test('without a batch the run always looks', async (t) => {
  for (const pace of [createPace(bounds), paceAfter(small), paceAfter(undefined)]) {
    t.equal(pace.isTimeToLook(undefined, 1_000), true);
    t.equal(pace.waitMs(undefined, 1_000), 0);
  }
});

t.test('a batch looks again after 500 ms if the pace is busy, after 1,000 ms if not', async (t) => {
  const many = batch(200_000);
  for (const [found, everyMs] of [
    [busy, 500],
    [small, 1_000],
    [undefined, 1_000],
  ] as const) {
    const pace = paceAfter(found);
    t.equal(pace.isTimeToLook(many, 1_000 + everyMs - 1), false);
    t.equal(pace.isTimeToLook(many, 1_000 + everyMs), true);
    t.equal(pace.waitMs(many, 1_000 + everyMs - 300), 300);
    t.equal(pace.waitMs(many, 1_000 + everyMs), 0, 'the look is due');
  }
});

t.test('a look counts from its start, so a slow insert makes nobody wait twice', async (t) => {
  const pace = createPace(bounds);
  pace.noteLook(busy, 1_000);
  t.equal(pace.waitMs(batch(100_000), 1_400), 100);
  t.equal(pace.waitMs(batch(100_000), 1_700), 0);
});

t.test('the run looks at once after a large segment or a left one', async (t) => {
  for (const found of [large, leftOver]) {
    const pace = paceAfter(found);
    t.equal(pace.isMore, true);
    t.equal(pace.isTimeToLook(batch(200_000), 1_000), true);
    t.equal(pace.waitMs(batch(200_000), 1_000), 0);
  }
  // A look shortly before changes nothing: the one at the large segment decides about the next look.
  const pace = createPace(bounds);
  pace.noteLook(small, 1_000);
  pace.noteLook(large, 1_010);
  t.equal(pace.isTimeToLook(batch(200_000), 1_010), true);
});

t.test('what busy means, and whether there is more', async (t) => {
  const states: [Parameters<Pace['noteLook']>[0][], { isBusy: boolean; isMore: boolean }][] = [
    [[], { isBusy: false, isMore: true }],
    [[{ rows: 124, isLeftOver: false }], { isBusy: false, isMore: false }],
    [[busy], { isBusy: true, isMore: false }],
    [[{ rows: 500, isLeftOver: false }], { isBusy: true, isMore: false }],
    [[large], { isBusy: true, isMore: true }],
    [[leftOver], { isBusy: false, isMore: true }],
    [[busy, undefined], { isBusy: false, isMore: false }],
    [[large, undefined], { isBusy: false, isMore: true }],
  ];
  for (const [looks, { isBusy, isMore }] of states) {
    const pace = paceAfter(...looks);
    t.same([pace.isBusy, pace.isMore], [isBusy, isMore], JSON.stringify(looks));
  }
});

t.test('how long a batch gathers', async (t) => {
  const dueInMs = (
    counters: number,
    drained: boolean,
    options: { msMin?: number; bytes?: number },
  ) => {
    const { msMin = 0, bytes = 2 } = options;
    const pace = createPace({ ...bounds, groupMsMin: msMin });
    pace.noteLook(drained ? small : busy, 1_000);
    return pace.dueInMs(batch(counters, bytes), 1_000);
  };
  t.equal(dueInMs(0, true, {}), 0, 'nothing to coalesce');
  t.equal(dueInMs(10_000, true, {}), 500);
  t.equal(dueInMs(10_000, false, {}), 500);
  t.equal(dueInMs(200_000, true, {}), 1_000, 'a limit takes effect within two seconds');
  t.equal(dueInMs(100_000, false, {}), 5_000);
  t.equal(dueInMs(450_000, false, {}), 10_000);
  t.equal(dueInMs(500_000, false, {}), 0, 'bounded in memory');
  t.equal(dueInMs(200_000, false, { bytes: 1_000 }), 0, 'bounded in backlog');
  t.equal(dueInMs(0, true, { msMin: 300 }), 300);
});

t.test('a run waits for the next look or until the batch is due', async (t) => {
  const pace = paceAfter(busy);
  t.equal(pace.waitMs(batch(4_000), 1_050), 150, 'due at 1,200 ms');
  t.equal(pace.waitMs(batch(4_000), 1_200), 0, 'due');
  t.equal(pace.waitMs(batch(100_000), 1_200), 300, 'the look at 1,500 ms comes first');
  t.equal(pace.waitMs(batch(4_000), 1_199.5), 1, 'a timer cannot wait for less');
});

t.test('a batch that gathers while much comes in is due sooner once that ends', async (t) => {
  const pace = paceAfter(busy);
  t.equal(pace.dueInMs(batch(200_000), 2_000), 9_000);
  pace.noteLook(undefined, 2_000);
  t.equal(pace.dueInMs(batch(200_000), 2_000), 0);
});
