import t from 'tap';
import { type Block, createGroupCommit, type Flush } from '../../src/spool/group-commit.ts';

function block(name: string, bytes = 10): Block {
  return { line: name, rows: 1, bytes: Buffer.alloc(bytes, name) };
}

function namesOf(posts: Flush['posts']): string[] {
  return posts.map(({ line }) => line);
}

/**
 * A flush that the test answers by hand. append.test.ts and http/routes.test.ts cover what reaches
 * Redis.
 */
function manualFlush() {
  const calls: {
    keys: string[];
    bytes: string;
    resolve: (v: number[]) => void;
    reject: (e: Error) => void;
  }[] = [];
  const flush = ({ posts, bytes }: Flush): Promise<number[]> =>
    new Promise((resolve, reject) => {
      const keys = namesOf(posts);
      calls.push({ keys, bytes: bytes.toString(), resolve, reject });
    });
  return { calls, flush };
}

function replyError(message: string): Error {
  const error = new Error(message);
  error.name = 'ReplyError';
  return error;
}

/** Longer than a test, so what waits for this interval goes on waiting. */
const longMs = 600_000;

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('posts that come while a flush is in flight are the next flush', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush, 0);
  const first = commit.submit(block('a'));
  const rest = [commit.submit(block('b')), commit.submit(block('c')), commit.submit(block('d'))];
  await turn();
  t.same(
    calls.map((call) => call.keys),
    [['a']],
  );
  calls[0]?.resolve([0]);
  t.equal(await first, 'stored');
  await turn();
  t.same(calls[1]?.keys, ['b', 'c', 'd']);
  calls[1]?.resolve([1, 2, 3]);
  t.same(await Promise.all(rest), ['duplicate', 'conflict', 'full']);
});

t.test('a flush has a bound in bytes', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush, 0);
  const all = ['a', 'b', 'c', 'd'].map((name) => commit.submit(block(name, 500_000)));
  all.push(commit.submit(block('large', 2_000_000)));
  const keys = [['a'], ['b'], ['c', 'd'], ['large']];
  for (const [index, some] of keys.entries()) {
    await turn();
    t.same(calls[index]?.keys, some);
    calls[index]?.resolve(some.map(() => 0));
  }
  t.same(await Promise.all(all), ['stored', 'stored', 'stored', 'stored', 'stored']);
  t.equal(calls[3]?.bytes, block('large', 2_000_000).bytes.toString());
});

t.test('submit copies the rows, and a flush keeps their order', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush, 0);
  // More flushes than spare buffers, so that each buffer is used again.
  for (let round = 0; round < 6; round += 1) {
    const first = commit.submit(block('a', 3));
    const memory = Buffer.from('bb');
    const rest = [
      commit.submit({ ...block('b'), bytes: memory }),
      commit.submit({ ...block('c'), bytes: Buffer.from(`c${round}`) }),
    ];
    memory.fill('x');
    await turn();
    t.equal(calls.at(-1)?.bytes, 'aaa');
    calls.at(-1)?.resolve([0]);
    await first;
    await turn();
    t.equal(calls.at(-1)?.bytes, `bbc${round}`);
    calls.at(-1)?.resolve([0, 0]);
    await Promise.all(rest);
  }
});

t.test('a flush is sent again if its answer was lost, not if Redis refused it', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush, 0);
  const lost = commit.submit(block('a'));
  await turn();
  calls[0]?.reject(new Error('Connection is closed.'));
  while (calls.length < 2) await new Promise((resume) => setTimeout(resume, 5));
  t.same(calls[1]?.keys, ['a'], 'the same post with the same key');
  calls[1]?.resolve([1]);
  t.equal(await lost, 'duplicate', 'Redis had stored it the first time');

  const refused = commit.submit(block('b'));
  await turn();
  calls[2]?.reject(replyError("OOM command not allowed when used memory > 'maxmemory'."));
  await t.rejects(refused, { code: 'STORE_UNAVAILABLE' });
  t.equal(calls.length, 3);
});

t.test('close waits for what is under way and refuses new posts', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush, 0);
  const first = commit.submit(block('a'));
  const second = commit.submit(block('b'));
  const closed = commit.close();
  await t.rejects(commit.submit(block('c')), { code: 'SHUTTING_DOWN' });
  await turn();
  calls[0]?.resolve([0]);
  await turn();
  calls[1]?.resolve([0]);
  await closed;
  t.same(await Promise.all([first, second]), ['stored', 'stored']);
});

t.test('a large flush joins the one in flight, and a third one waits', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush, 0);
  const submit = (count: number) => Array.from({ length: count }, () => commit.submit(block('a')));
  const sizes = () => calls.map(({ keys }) => keys.length);
  const answer = async (index: number): Promise<void> => {
    calls[index]?.resolve(Array(calls[index]?.keys.length).fill(0));
    await turn();
  };
  const all = [...submit(1), ...submit(15)];
  t.same(sizes(), [1], 'fifteen posts are not a large flush');
  all.push(...submit(1));
  t.same(sizes(), [1, 16]);
  all.push(...submit(40));
  t.same(sizes(), [1, 16], 'two flushes are in flight');
  await answer(0);
  t.same(sizes(), [1, 16, 40]);
  await answer(1);
  all.push(...submit(19));
  t.same(sizes(), [1, 16, 40], '19 posts are less than half of the 40 in flight');
  all.push(...submit(1));
  t.same(sizes(), [1, 16, 40, 20]);
  all.push(...submit(1));
  let closed = false;
  const close = commit.close().then(() => {
    closed = true;
  });
  await answer(3);
  await answer(2);
  t.same([sizes().at(-1), closed], [1, false], 'close sends what waits');
  await answer(4);
  await close;
  t.same(await Promise.all(all), Array(78).fill('stored'));
});

t.test('small flushes keep an interval; large ones and the first one do not', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush, longMs);
  const sizes = () => calls.map(({ keys }) => keys.length);
  const answer = async (index: number): Promise<void> => {
    calls[index]?.resolve(Array(calls[index]?.keys.length).fill(0));
    await turn();
  };
  const all = [commit.submit(block('a'))];
  t.same(sizes(), [1], 'no flush came before it');
  await answer(0);
  all.push(commit.submit(block('b')));
  await turn();
  all.push(commit.submit(block('c')));
  await turn();
  t.same(sizes(), [1], 'they wait although nothing is in flight');
  for (let count = 2; count < 16; count += 1) all.push(commit.submit(block('d')));
  t.same(sizes(), [1, 16], 'together they are a large flush');
  await answer(1);
  all.push(commit.submit(block('e', 65_536)));
  t.same(sizes(), [1, 16, 1], 'a flush can also be large in bytes');
  await answer(2);
  all.push(commit.submit(block('f')));
  await turn();
  t.same(sizes(), [1, 16, 1]);
  const closed = commit.close();
  t.same(sizes(), [1, 16, 1, 1], 'close does not wait for the interval');
  await answer(3);
  await closed;
  t.same(await Promise.all(all), Array(all.length).fill('stored'));
});

t.test('a small flush is sent when its interval is over', async (t) => {
  const sent: string[][] = [];
  const commit = createGroupCommit(async ({ posts }) => {
    sent.push(namesOf(posts));
    return posts.map(() => 0);
  });
  for (const name of ['a', 'b', 'c']) t.equal(await commit.submit(block(name)), 'stored');
  t.same(sent, [['a'], ['b'], ['c']]);
});
