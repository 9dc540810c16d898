import { randomUUID } from 'node:crypto';
import { limits } from '../contract/limits.ts';
import { fingerprintOf } from '../rows/wasm.ts';
import type { Identity } from '../spool/identity.ts';
import type { Kind } from '../spool/streams.ts';

/** What the headers of a post say of it, as sent; empty if not sent. */
export interface PostHeaders {
  /** `Idempotency-Key` */
  idempotencyKey: string;
  /** `x-node-stream`: a UUID that the agent made at its first start. */
  postStream: string;
  /** `x-node-sequence`: from 1, up by one a new post, the same on a repeat. */
  postSequence: string;
}

/** What is wrong with the headers of a post. */
export type BadHeader = 'idempotency-key-too-long' | 'post-stream-wrong' | 'post-sequence-wrong';

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const sequence = /^[1-9][0-9]{0,15}$/;

/**
 * How Core recognises the post if it comes again: by its number, or by its `Idempotency-Key`, for the
 * node. A usage or session post with neither identifies itself: it has time stamps, so equal bytes from
 * the same node are a repeat. Outbound usage has no time stamps, so a post with neither is new each time.
 */
export function identify(
  kind: Kind,
  { idempotencyKey, postStream, postSequence }: PostHeaders,
  body: bigint,
): Identity | BadHeader {
  if (idempotencyKey.length > limits.idempotencyKeyCharsMax) return 'idempotency-key-too-long';
  if (postStream !== '' || postSequence !== '')
    return identifyByNumber(postStream, postSequence, body);
  if (idempotencyKey !== '') {
    const key = fingerprintOf(Buffer.from(idempotencyKey));
    return { way: 'key', key, body, id: fingerprintOf(Buffer.from(`${key} ${body}`)) };
  }
  if (kind === 'outbound') return { way: 'flush', id: randomUUID() };
  return { way: 'body', id: body };
}

function identifyByNumber(
  postStream: string,
  postSequence: string,
  body: bigint,
): Identity | BadHeader {
  if (!uuid.test(postStream)) return 'post-stream-wrong';
  const number = Number(postSequence);
  if (!sequence.test(postSequence) || !Number.isSafeInteger(number)) return 'post-sequence-wrong';
  const stream = postStream.toLowerCase();
  const id = fingerprintOf(Buffer.from(`${stream} ${number} ${body}`));
  return { way: 'number', stream, number, id };
}
