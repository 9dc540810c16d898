import t from 'tap';
import { type AcceptDeps, acceptPost, type Post } from '../../src/accept/accept.ts';
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

function postOf(kind: Post['kind'], value: unknown, idempotencyKey = ''): Post {
  return { kind, nodeId, body: Buffer.from(JSON.stringify(value)), idempotencyKey };
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
    const key = 'k'.repeat(length);
    await acceptPost(deps, postOf('usage', usage, key));
    const [block] = blocks;
    t.same(block && expandUsage(block.bytes, 1), expected, `a key of ${length} characters`);
    t.equal(block?.key, `${nodeId}:k:${fingerprintOf(Buffer.from(key))}`);
  }
});

t.test('how Core recognises each kind of post if it comes again', async (t) => {
  const identityOf = async (post: Post) => {
    const { deps, blocks } = fakeDeps();
    await acceptPost(deps, post);
    return { key: blocks[0]?.key ?? '', fingerprint: blocks[0]?.fingerprint };
  };
  for (const post of [postOf('usage', usage), postOf('session', session)]) {
    const key = `${nodeId}:b:${fingerprintOf(post.body)}`;
    t.same(await identityOf(post), { key, fingerprint: '' }, 'by its bytes');
  }
  const first = await identityOf(postOf('outbound', outbound));
  const second = await identityOf(postOf('outbound', outbound));
  t.match(first, { key: /^7:r:/, fingerprint: '' });
  t.not(first.key, second.key, 'outbound usage has no time stamps, so it is new each time');
  for (const [kind, value] of [
    ['usage', usage],
    ['outbound', outbound],
  ] as const) {
    const post = postOf(kind, value, 'a key');
    const key = `${nodeId}:k:${fingerprintOf(Buffer.from('a key'))}`;
    const fingerprint = fingerprintOf(post.body);
    t.same(await identityOf(post), { key, fingerprint }, 'by its header');
  }
});

t.test('every verdict of the spool is an outcome', async (t) => {
  const outcomes = {
    stored: { outcome: 'stored' },
    duplicate: { outcome: 'stored-before' },
    conflict: { outcome: 'dropped', reason: 'idempotency-key-reused' },
    full: { outcome: 'dropped', reason: 'backlog-full' },
    'late-full': { outcome: 'dropped', reason: 'late-backlog-full' },
  } as const;
  for (const [verdict, outcome] of Object.entries(outcomes)) {
    const { deps } = fakeDeps(verdict as SpoolVerdict);
    t.same(await acceptPost(deps, postOf('usage', usage)), outcome, verdict);
  }
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
  const long = 'k'.repeat(limits.idempotencyKeyCharsMax + 1);
  for (const post of [postOf('usage', usage, long), postOf('usage', { entries: [] }, long)]) {
    const reason = 'idempotency-key-too-long';
    t.same(await acceptPost(deps, post), { outcome: 'dropped', reason });
  }
  await t.rejects(acceptPost(deps, postOf('usage', {}, long)), { code: 'VALIDATION_FAILED' });
  const broken = { ...postOf('session', session), body: Buffer.from('{') };
  await t.rejects(acceptPost(deps, broken), { code: 'MALFORMED_JSON' });
  t.equal(blocks.length, 0);
});

t.test('what Core tells the node of a drop', async (t) => {
  const told = Object.entries(ingestRefusals).map(([reason, refusal]) => {
    const { code, status, headers } = refusal();
    return [reason, code, status, headers?.['Retry-After']];
  });
  t.same(told, [
    ['idempotency-key-too-long', 'INVALID_HEADER', 400, undefined],
    ['idempotency-key-reused', 'IDEMPOTENCY_KEY_REUSED', 422, undefined],
    ['backlog-full', 'BACKLOG_FULL', 503, '5'],
    ['late-backlog-full', 'LATE_BACKLOG_FULL', 503, '30'],
  ]);
});
