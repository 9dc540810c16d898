import type { IngestSchemas } from '../contract/node.ts';
import { compact, type SpoolRows } from '../rows/compact.ts';
import { fingerprintOf, scanUsage } from '../rows/wasm.ts';
import type { Identity } from '../spool/identity.ts';
import type { Spool, SpoolVerdict } from '../spool/spool.ts';
import type { Kind } from '../spool/streams.ts';
import { type BadHeader, identify, type PostHeaders } from './identify.ts';
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
  headers: PostHeaders;
}

/** What became of a post that its contract allows. */
type Outcome =
  | { outcome: 'stored' }
  | { outcome: 'stored-before' }
  /** It has no entry, and no key or number to keep, so there is nothing to store. */
  | { outcome: 'empty' }
  | { outcome: 'dropped'; reason: DropReason };

/** Why nothing of a post is stored. */
export type DropReason =
  | BadHeader
  | 'idempotency-key-reused'
  | 'post-number-reused'
  | 'post-number-gaps'
  | 'post-streams-full'
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
  const identity = identify(post.kind, post.headers, decoded.fingerprint);
  if (typeof identity === 'string') return { outcome: 'dropped', reason: identity };
  const isKept = identity.way === 'key' || identity.way === 'number';
  if (decoded.rows === 0 && !isKept) return { outcome: 'empty' };
  const verdict = await append(deps, post, decoded, identity);
  return outcomeOf(verdict, identity);
}

/** The rows of a post as the spool keeps them, and the fingerprint of its body. */
type Decoded = SpoolRows & { fingerprint: bigint };

const outcomes: Readonly<Record<Exclude<SpoolVerdict, 'conflict'>, Outcome>> = {
  stored: { outcome: 'stored' },
  duplicate: { outcome: 'stored-before' },
  full: { outcome: 'dropped', reason: 'backlog-full' },
  'late-full': { outcome: 'dropped', reason: 'late-backlog-full' },
  gaps: { outcome: 'dropped', reason: 'post-number-gaps' },
  streams: { outcome: 'dropped', reason: 'post-streams-full' },
};

function outcomeOf(verdict: SpoolVerdict, { way }: Identity): Outcome {
  if (verdict !== 'conflict') return outcomes[verdict];
  const reason = way === 'number' ? 'post-number-reused' : 'idempotency-key-reused';
  return { outcome: 'dropped', reason };
}

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

function append(
  { spool }: AcceptDeps,
  { kind, nodeId }: Post,
  { rows, bytes, oldestSeconds }: Decoded,
  identity: Identity,
): Promise<SpoolVerdict> {
  return spool.append(kind, nodeId, { identity, rows, bytes, oldestSeconds });
}
