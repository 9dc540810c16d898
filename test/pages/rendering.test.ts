import t from 'tap';
import { createPageRendering } from '../../src/pages/rendering.ts';
import { openStores } from '../support/stores.ts';

t.test('a thread has a hundred pages to render at most, and a closed one refuses', async (t) => {
  const { databaseUrl } = await openStores(t, { max: 1 });
  const rendering = createPageRendering({ databaseUrl, title: 'Core' });
  const hash = Buffer.alloc(32);
  const waiting = Array.from({ length: 100 }, () => rendering.render(hash, 'plain'));
  await t.rejects(rendering.render(hash, 'plain'), {
    code: 'PAGE_QUEUE_FULL',
    headers: { 'Retry-After': '2' },
  });
  t.same(new Set(await Promise.all(waiting)), new Set([undefined]), 'the others are answered');
  t.equal(await rendering.render(hash, 'plain'), undefined, 'and there is room again');

  const last = rendering.render(hash, 'plain');
  await Promise.all([rendering.close(), t.rejects(last, { code: 'SHUTTING_DOWN' })]);
  await t.rejects(rendering.render(hash, 'plain'), { code: 'SHUTTING_DOWN' });
});
