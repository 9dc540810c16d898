import t from 'tap';
import { type Block, createGroupCommit } from '../src/ingest/group-commit.ts';

function block(name: string, bytes = 10): Block {
  return { key: name, fingerprint: name, rows: 1, bytes: Buffer.alloc(bytes) };
}

/** A flush that the test answers by hand: what reaches Redis is covered by routes.test.ts. */
function manualFlush() {
  const calls: { keys: string[]; resolve: (v: number[]) => void; reject: (e: Error) => void }[] =
    [];
  const flush = (blocks: readonly Block[]): Promise<number[]> =>
    new Promise((resolve, reject) => {
      calls.push({ keys: blocks.map((b) => b.key), resolve, reject });
    });
  return { calls, flush };
}

function replyError(message: string): Error {
  const error = new Error(message);
  error.name = 'ReplyError';
  return error;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('one flush is in flight; what gathers meanwhile is the next', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush);
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

t.test('a flush is bounded in bytes', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush);
  const all = ['a', 'b', 'c', 'd'].map((name) => commit.submit(block(name, 600_000)));
  await turn();
  calls[0]?.resolve([0]);
  await turn();
  t.same(calls[1]?.keys, ['b', 'c']);
  calls[1]?.resolve([0, 0]);
  await turn();
  calls[2]?.resolve([0]);
  t.same(await Promise.all(all), ['stored', 'stored', 'stored', 'stored']);
});

t.test('a flush whose answer was lost is sent again; a refusal is not', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush);
  const lost = commit.submit(block('a'));
  await turn();
  calls[0]?.reject(new Error('Connection is closed.'));
  while (calls.length < 2) await new Promise((resume) => setTimeout(resume, 5));
  t.same(calls[1]?.keys, ['a'], 'the same request with the same key');
  calls[1]?.resolve([1]);
  t.equal(await lost, 'duplicate', 'which had been stored the first time');

  const refused = commit.submit(block('b'));
  await turn();
  calls[2]?.reject(replyError("OOM command not allowed when used memory > 'maxmemory'."));
  await t.rejects(refused, { code: 'STORE_UNAVAILABLE' });
  t.equal(calls.length, 3);
});

t.test('closing waits for what is under way and refuses what is new', async (t) => {
  const { calls, flush } = manualFlush();
  const commit = createGroupCommit(flush);
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
