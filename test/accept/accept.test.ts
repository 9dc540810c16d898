import t from 'tap';
import { type AcceptDeps, acceptPost, type Post } from '../../src/accept/accept.ts';
import type { PostHeaders } from '../../src/accept/identify.ts';
import { createLargeBodies } from '../../src/accept/large-bodies.ts';
import { limits } from '../../src/contract/limits.ts';
import { ingestSchemas } from '../../src/contract/node.ts';
import { ingestRefusals } from '../../src/http/routes/ingest.ts';
import { packUsage } from '../../src/rows/pack.ts';
import { expandUsage } from '../../src/rows/usage-rows.ts';
import { fingerprintOf } from '../../src/rows/wasm.ts';
import type { SpoolBlock, SpoolVerdict } from '../../src/spool/spool.ts';
import { copyOf } from '../support/copy-of.ts';

const atMs = Date.parse('2026-11-25T00:00:00Z');
const nodeId = 7;
const bounds = { entriesMax: 10_000, nowMs: () => atMs };
const largeBodies = createLargeBodies(bounds);
t.teardown(() => largeBodies.close());

type StoredBlock = SpoolBlock & { bytes: Buffer };

/** A spool that keeps the blocks and gives one verdict. */
function fakeDeps(verdict: SpoolVerdict = 'stored'): { deps: AcceptDeps; blocks: StoredBlock[] } {
  const blocks: StoredBlock[] = [];
  const spool = {
    async append(_kind: string, _nodeId: number, block: SpoolBlock) {
      blocks.push({ ...block, bytes: copyOf(block.bytes) });
      return verdict;
    },
    close: async () => undefined,
  };
  return { deps: { schemas: ingestSchemas(bounds), bounds, largeBodies, spool }, blocks };
}

const noHeaders: PostHeaders = { idempotencyKey: '', postStream: '', postSequence: '' };

function postOf(kind: Post['kind'], value: unknown, headers: Partial<PostHeaders> = {}): Post {
  const body = Buffer.from(JSON.stringify(value));
  return { kind, nodeId, body, headers: { ...noHeaders, ...headers } };
}

const recordedAt = '2026-11-24T10:00:00Z';
const entry = { userId: 1, nodeProtocolId: 2, bytesUp: 3, bytesDown: 4 };
const usage = { entries: [{ ...entry, recordedAt }] };
/** A field that the scanner does not know, so that zod decodes the body. */
const unusual = { entries: [{ ...entry, recordedAt, odd: 1 }] };
const session = {
  events: [{ userId: 1, protocol: 'VLESS', eventType: 'ONLINE', occurredAt: recordedAt }],
};
const outbound = { items: [{ tag: 'direct', bytesUp: 1, bytesDown: 2 }] };

t.test('the scanner and zod give the spool the same rows', async (t) => {
  const large = { ...unusual, more: 'x'.repeat(100_000) };
  const expected = packUsage(nodeId, [{ ...entry, recordedAt: Date.parse(recordedAt) }]);
  for (const value of [usage, unusual, large]) {
    const { deps, blocks } = fakeDeps();
    t.same(await acceptPost(deps, postOf('usage', value)), { outcome: 'stored' });
    t.equal(blocks.length, 1);
    const [block] = blocks;
    t.match(block, { rows: 1, oldestSeconds: Date.parse(recordedAt) / 1_000 });
    t.same(block && expandUsage(block.bytes, 1), expected);
  }
});

t.test('an Idempotency-Key of any length leaves the rows as they are', async (t) => {
  const expected = packUsage(nodeId, [{ ...entry, recordedAt: Date.parse(recordedAt) }]);
  for (let length = 1; length <= limits.idempotencyKeyCharsMax; length += 1) {
    const { deps, blocks } = fakeDeps();
    const idempotencyKey = 'k'.repeat(length);
    await acceptPost(deps, postOf('usage', usage, { idempotencyKey }));
    const [block] = blocks;
    t.same(block && expandUsage(block.bytes, 1), expected, `a key of ${length} characters`);
    t.match(block?.identity, { way: 'key', key: fingerprintOf(Buffer.from(idempotencyKey)) });
  }
});

const postStream = '0c9f8ad4-6a7e-4a64-8f0e-5f2a6b1d9e10';

t.test('how Core recognises each kind of post if it comes again', async (t) => {
  const identityOf = async (post: Post) => {
    const { deps, blocks } = fakeDeps();
    await acceptPost(deps, post);
    return blocks[0]?.identity;
  };
  for (const post of [postOf('usage', usage), postOf('session', session)]) {
    t.same(await identityOf(post), { way: 'body', id: fingerprintOf(post.body) });
  }
  const first = await identityOf(postOf('outbound', outbound));
  t.match(first, { way: 'flush', id: /^[0-9a-f-]{36}$/ });
  t.notSame(
    first,
    await identityOf(postOf('outbound', outbound)),
    'it has no times, so each is new',
  );
  for (const [kind, value] of [
    ['usage', usage],
    ['session', session],
    ['outbound', outbound],
  ] as const) {
    const keyed = postOf(kind, value, { idempotencyKey: 'a key' });
    const [key, body] = [fingerprintOf(Buffer.from('a key')), fingerprintOf(keyed.body)];
    t.match(await identityOf(keyed), { way: 'key', key, body });
    const numbers = { postStream: postStream.toUpperCase(), postSequence: '12' };
    const numbered = { way: 'number', stream: postStream, number: 12 };
    t.match(await identityOf(postOf(kind, value, numbers)), numbered);
    const both = { ...numbers, idempotencyKey: 'a key' };
    t.match(
      await identityOf(postOf(kind, value, both)),
      numbered,
      'the number counts, not the key',
    );
  }
});

t.test('the id of a key or a number tells its body apart', async (t) => {
  const idOf = async (bytesUp: number, headers: Partial<PostHeaders>) => {
    const { deps, blocks } = fakeDeps();
    await acceptPost(
      deps,
      postOf('outbound', { items: [{ tag: 'a', bytesUp, bytesDown: 0 }] }, headers),
    );
    return blocks[0]?.identity.id;
  };
  const all = await Promise.all(
    [1, 2].flatMap((bytesUp) => [
      idOf(bytesUp, { idempotencyKey: 'a' }),
      idOf(bytesUp, { idempotencyKey: 'b' }),
      idOf(bytesUp, { postStream, postSequence: '1' }),
      idOf(bytesUp, { postStream, postSequence: '2' }),
      idOf(bytesUp, { postStream: postStream.replace('0', '1'), postSequence: '1' }),
    ]),
  );
  t.equal(new Set(all).size, 10);
});

t.test('every verdict of the spool is an outcome', async (t) => {
  const outcomes = {
    stored: { outcome: 'stored' },
    duplicate: { outcome: 'stored-before' },
    gaps: { outcome: 'dropped', reason: 'post-number-gaps' },
    streams: { outcome: 'dropped', reason: 'post-streams-full' },
    full: { outcome: 'dropped', reason: 'backlog-full' },
    'late-full': { outcome: 'dropped', reason: 'late-backlog-full' },
  } as const;
  for (const [verdict, outcome] of Object.entries(outcomes)) {
    const { deps } = fakeDeps(verdict as SpoolVerdict);
    t.same(await acceptPost(deps, postOf('usage', usage)), outcome, verdict);
  }
  const { deps } = fakeDeps('conflict');
  const keyed = postOf('usage', usage, { idempotencyKey: 'a' });
  const dropped = { outcome: 'dropped', reason: 'idempotency-key-reused' };
  t.same(await acceptPost(deps, keyed), dropped);
  const numbered = postOf('usage', usage, { postStream, postSequence: '1' });
  t.same(await acceptPost(deps, numbered), { outcome: 'dropped', reason: 'post-number-reused' });
});

t.test('posts that the spool never sees', async (t) => {
  const { deps, blocks } = fakeDeps();
  for (const post of [
    postOf('usage', { entries: [] }),
    postOf('usage', { entries: [], odd: 1 }),
    postOf('session', { events: [] }),
    postOf('outbound', { items: [] }),
  ]) {
    t.same(await acceptPost(deps, post), { outcome: 'empty' });
  }
  const wrong: [Partial<PostHeaders>, string][] = [
    [{ idempotencyKey: 'k'.repeat(limits.idempotencyKeyCharsMax + 1) }, 'idempotency-key-too-long'],
    [{ postSequence: '1' }, 'post-stream-wrong'],
    ...[`${postStream}0`, 'a stream', `{${postStream}}`, ` ${postStream}`].map(
      (stream): [Partial<PostHeaders>, string] => [
        { postStream: stream, postSequence: '1' },
        'post-stream-wrong',
      ],
    ),
    ...['', '0', '-1', '01', '1.5', '1e3', '9007199254740992', '0x10', ' 1', '1 '].map(
      (postSequence): [Partial<PostHeaders>, string] => [
        { postStream, postSequence },
        'post-sequence-wrong',
      ],
    ),
  ];
  for (const [headers, reason] of wrong) {
    for (const value of [usage, { entries: [] }]) {
      t.same(await acceptPost(deps, postOf('usage', value, headers)), {
        outcome: 'dropped',
        reason,
      });
    }
  }
  const [long] = wrong[0] ?? [{}];
  await t.rejects(acceptPost(deps, postOf('usage', {}, long)), { code: 'VALIDATION_FAILED' });
  const broken = { ...postOf('session', session), body: Buffer.from('{') };
  await t.rejects(acceptPost(deps, broken), { code: 'MALFORMED_JSON' });
  t.equal(blocks.length, 0);
});

t.test('a key or a number is kept for a post without rows, too', async (t) => {
  for (const headers of [{ idempotencyKey: 'a' }, { postStream, postSequence: '1' }]) {
    for (const [kind, value] of [
      ['usage', { entries: [] }],
      ['session', { events: [] }],
      ['outbound', { items: [] }],
    ] as const) {
      const { deps, blocks } = fakeDeps();
      t.same(await acceptPost(deps, postOf(kind, value, headers)), { outcome: 'stored' });
      t.match(blocks, [{ rows: 0, oldestSeconds: Number.POSITIVE_INFINITY }]);
    }
  }
});

t.test('what Core tells the node of a drop', async (t) => {
  const told = Object.entries(ingestRefusals).map(([reason, refusal]) => {
    const { code, status, headers } = refusal();
    return [reason, code, status, headers?.['Retry-After']];
  });
  t.same(told, [
    ['idempotency-key-too-long', 'INVALID_HEADER', 400, undefined],
    ['post-stream-wrong', 'INVALID_HEADER', 400, undefined],
    ['post-sequence-wrong', 'INVALID_HEADER', 400, undefined],
    ['post-number-reused', 'POST_NUMBER_REUSED', 422, undefined],
    ['post-number-gaps', 'POST_NUMBER_GAPS', 409, undefined],
    ['post-streams-full', 'POST_STREAMS_FULL', 409, undefined],
    ['idempotency-key-reused', 'IDEMPOTENCY_KEY_REUSED', 422, undefined],
    ['backlog-full', 'BACKLOG_FULL', 503, '5'],
    ['late-backlog-full', 'LATE_BACKLOG_FULL', 503, '30'],
  ]);
});
