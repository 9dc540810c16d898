import t from 'tap';
import { createMinuteCounter } from '../../src/pages/minute-counter.ts';
import { createPageCache } from '../../src/pages/page-cache.ts';
import type { Page } from '../../src/pages/render-page.ts';
import { isToken, newToken } from '../../src/pages/token.ts';

t.test('a key that is over its limit waits for the end of its minute', async (t) => {
  let now = 0;
  const counter = createMinuteCounter(2, () => now);
  t.same([counter.count('a'), counter.count('a'), counter.count('a')], [0, 0, 60]);
  t.equal(counter.count('b'), 0);
  now = 59_500;
  t.equal(counter.count('a'), 1);
  now = 60_000;
  t.equal(counter.count('a'), 0);
});

t.test('made-up keys drive out the oldest ones, and take no more memory than that', async (t) => {
  const counter = createMinuteCounter(1, () => 0);
  counter.count('old');
  for (let key = 0; key < 19_999; key += 1) counter.count(`made up ${key}`);
  t.equal(counter.count('old'), 60, 'still known');
  counter.count('one more');
  t.equal(counter.count('old'), 0, 'forgotten');
});

const page = (body: string): Page => ({
  format: 'plain',
  body,
  etag: '"1"',
  userInfo: '',
  leftOut: 0,
});

t.test('a page is kept for five seconds, and the oldest go past the bound', async (t) => {
  let now = 0;
  const cache = createPageCache(() => now);
  cache.put('a', page('x'));
  now = 4_999;
  t.equal(cache.get('a')?.body, 'x');
  now = 5_000;
  t.equal(cache.get('a'), undefined);
  const large = 'x'.repeat(3_000_000);
  for (const key of ['1', '2', '3']) cache.put(key, page(large));
  t.same(
    ['1', '2', '3'].map((key) => cache.get(key) !== undefined),
    [false, true, true],
  );
  cache.put('4', page('x'.repeat(9_000_000)));
  t.equal(cache.get('4'), undefined, 'larger than all that is kept');
  t.not(cache.get('3'), undefined);
});

t.test(
  'tokens have 144 random bits; those of other panels are checked for their form',
  async (t) => {
    t.match(newToken(), /^[\w-]{24}$/);
    t.not(newToken(), newToken());
    t.ok(isToken(newToken()));
    t.ok(isToken('abcdefghij012345'));
    for (const other of ['short', 'with/slash/0123456789', 'x'.repeat(65), ''])
      t.notOk(isToken(other));
  },
);
