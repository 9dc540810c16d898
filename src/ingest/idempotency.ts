import { randomUUID } from 'node:crypto';
import { limits } from '../contract/limits.ts';
import { CoreError } from '../errors.ts';
import { fingerprintOf } from './fingerprint.ts';
import { type Kind, shardOf } from './streams.ts';

/** How a post is recognised when it comes again. */
export interface Identity {
  /** Redis key, in the hash slot of the node's stream. */
  key: string;
  /** Of the unpacked body: the same key with another fingerprint is another request. */
  fingerprint: string;
}

/**
 * Identity of a post. With an `Idempotency-Key` it is that key, per node and kind. Without one, a
 * usage or session body identifies itself: it carries its own timestamps, so equal bytes from the
 * same node are a retry. Outbound usage has none, so such a post is new each time; its random key
 * still lets Core itself repeat a flush whose answer was lost.
 * @throws CoreError INVALID_HEADER where the key is too long.
 */
export function identify(request: {
  prefix: string;
  shards: number;
  kind: Kind;
  nodeId: number;
  header: string;
  /** Of the unpacked body. */
  fingerprint: string;
}): Identity {
  const { kind, nodeId, header, fingerprint } = request;
  const base = `${request.prefix}:{s${shardOf(nodeId, request.shards)}}:seen:${kind}:${nodeId}`;
  if (header !== '') {
    checkHeader(header);
    return { key: `${base}:k:${fingerprintOf(Buffer.from(header))}`, fingerprint };
  }
  if (kind === 'outbound') return { key: `${base}:r:${randomUUID()}`, fingerprint };
  return { key: `${base}:b:${fingerprint}`, fingerprint };
}

function checkHeader(header: string): void {
  if (header.length <= limits.idempotencyKeyCharsMax) return;
  throw new CoreError(
    'INVALID_HEADER',
    `Idempotency-Key is over ${limits.idempotencyKeyCharsMax} characters`,
  );
}
