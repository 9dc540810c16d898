import { randomUUID } from 'node:crypto';
import { limits } from '../contract/limits.ts';
import { CoreError } from '../errors.ts';
import type { Identity } from '../spool/group-commit.ts';
import type { Kind } from '../spool/streams.ts';
import { fingerprintOf } from './fingerprint.ts';

/**
 * Identity of a post. With an `Idempotency-Key` it is that key, per node and kind. Without one, a
 * usage or session body identifies itself: it carries its own timestamps, so equal bytes from the
 * same node are a retry. Outbound usage has none, so such a post is new each time; its random key
 * still lets Core itself repeat a flush whose answer was lost.
 * @throws CoreError INVALID_HEADER where the key is too long.
 */
export function identify(request: {
  kind: Kind;
  nodeId: number;
  header: string;
  /** Of the unpacked body. */
  fingerprint: string;
}): Identity {
  const { kind, nodeId, header, fingerprint } = request;
  if (header !== '') {
    checkHeader(header);
    return { key: `${nodeId}:k:${fingerprintOf(Buffer.from(header))}`, fingerprint };
  }
  if (kind === 'outbound') return { key: `${nodeId}:r:${randomUUID()}`, fingerprint: '' };
  return { key: `${nodeId}:b:${fingerprint}`, fingerprint: '' };
}

function checkHeader(header: string): void {
  if (header.length <= limits.idempotencyKeyCharsMax) return;
  throw new CoreError(
    'INVALID_HEADER',
    `Idempotency-Key is over ${limits.idempotencyKeyCharsMax} characters`,
  );
}
