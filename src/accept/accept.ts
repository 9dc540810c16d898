import { randomUUID } from 'node:crypto';
import { limits } from '../contract/limits.ts';
import type { IngestSchemas } from '../contract/node.ts';
import { compact, type SpoolRows } from '../rows/compact.ts';
import { fingerprintOf, scanUsage } from '../rows/wasm.ts';
import type { Identity } from '../spool/group-commit.ts';
import type { Spool, SpoolVerdict } from '../spool/spool.ts';
import type { Kind } from '../spool/streams.ts';
import { type LargeBodies, smallBodyBytesMax } from './large-bodies.ts';
import { packBody } from './pack-body.ts';

export interface AcceptDeps {
  schemas: IngestSchemas;
  /** The same bounds as those of `schemas`. */
  bounds: { entriesMax: number; nowMs: () => number };
  largeBodies: LargeBodies;
  spool: Spool;
}

/** One request of a node with entries. */
export interface Post {
  kind: Kind;
  nodeId: number;
  /** Decompressed. Its memory may be used again after the first await. */
  body: Uint8Array;
  /** The header `Idempotency-Key`; empty if the node sent none. */
  idempotencyKey: string;
}

/** What became of a post that its contract allows. */
type Outcome =
  | { outcome: 'stored' }
  | { outcome: 'stored-before' }
  /** It has no entry, so there is nothing to store. */
  | { outcome: 'empty' }
  | { outcome: 'dropped'; reason: DropReason };

/** Why nothing of a post is stored. */
export type DropReason =
  | 'idempotency-key-too-long'
  | 'idempotency-key-reused'
  | 'backlog-full'
  | 'late-backlog-full';

/**
 * The steps of a post, from its body to the fsync in Redis. If a step throws, Core has stored nothing
 * of the post. Only STORE_UNAVAILABLE leaves that open: Redis may have stored the post before its
 * answer was lost.
 * @throws CoreError MALFORMED_JSON or VALIDATION_FAILED if the body is wrong; STORE_UNAVAILABLE;
 * SHUTTING_DOWN; and from large-bodies.ts BACKLOG_FULL if too many large bodies wait, or INTERNAL.
 */
export async function acceptPost(deps: AcceptDeps, post: Post): Promise<Outcome> {
  const decoded = scan(deps, post) ?? (await decode(deps, post));
  const identity = identify(post, decoded.fingerprint);
  if (identity === undefined) return { outcome: 'dropped', reason: 'idempotency-key-too-long' };
  if (decoded.rows === 0) return { outcome: 'empty' };
  const verdict = await append(deps, post, decoded, identity);
  return outcomes[verdict];
}

/** The rows of a post as the spool keeps them, and the fingerprint of its body. */
type Decoded = SpoolRows & { fingerprint: string };

const outcomes: Readonly<Record<SpoolVerdict, Outcome>> = {
  stored: { outcome: 'stored' },
  duplicate: { outcome: 'stored-before' },
  conflict: { outcome: 'dropped', reason: 'idempotency-key-reused' },
  full: { outcome: 'dropped', reason: 'backlog-full' },
  'late-full': { outcome: 'dropped', reason: 'late-backlog-full' },
};

/**
 * The fast way: decodes, packs and compacts usage in WebAssembly. Undefined if the scanner is not
 * certain of the body.
 */
function scan({ bounds }: AcceptDeps, { kind, nodeId, body }: Post): Decoded | undefined {
  if (kind !== 'usage') return undefined;
  return scanUsage(nodeId, body, { entriesMax: bounds.entriesMax, nowMs: bounds.nowMs() });
}

/**
 * The sure way: decodes by the contract, in zod. A thread decodes a large body, which would block the
 * event loop.
 */
async function decode({ schemas, largeBodies }: AcceptDeps, post: Post): Promise<Decoded> {
  const { kind, body } = post;
  const fingerprint = fingerprintOf(body);
  const isLarge = body.length > smallBodyBytesMax;
  const packed = isLarge ? await largeBodies.pack(post) : packBody(schemas, post);
  return { ...compact(kind, packed), fingerprint };
}

/**
 * How Core recognises the post if it comes again: by its `Idempotency-Key`, for the node and kind. A
 * usage or session post without one identifies itself: it has time stamps, so equal bytes from the
 * same node are a retry. Outbound usage has no time stamps, so a post without a key is new each time.
 * Its random key still lets Core repeat a flush if the answer was lost. Undefined if the header is
 * too long.
 */
function identify(post: Post, fingerprint: string): Identity | undefined {
  const { kind, nodeId, idempotencyKey } = post;
  if (idempotencyKey.length > limits.idempotencyKeyCharsMax) return undefined;
  if (idempotencyKey !== '') {
    return { key: `${nodeId}:k:${fingerprintOf(Buffer.from(idempotencyKey))}`, fingerprint };
  }
  if (kind === 'outbound') return { key: `${nodeId}:r:${randomUUID()}`, fingerprint: '' };
  return { key: `${nodeId}:b:${fingerprint}`, fingerprint: '' };
}

function append(
  { spool }: AcceptDeps,
  { kind, nodeId }: Post,
  { rows, bytes, oldestSeconds }: Decoded,
  { key, fingerprint }: Identity,
): Promise<SpoolVerdict> {
  return spool.append(kind, nodeId, { key, fingerprint, rows, bytes, oldestSeconds });
}
