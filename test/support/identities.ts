import { fingerprintOf } from '../../src/rows/wasm.ts';
import type { Identity } from '../../src/spool/identity.ts';

/** How Core recognises a post with this idempotency key and this body. */
export function byKey(key: string, body = key): Identity {
  return {
    way: 'key',
    key: fingerprintOf(Buffer.from(key)),
    body: fingerprintOf(Buffer.from(body)),
    id: fingerprintOf(Buffer.from(`${key} ${body}`)),
  };
}

/** How Core recognises a post with this number and this body. */
export function byNumber(stream: string, number: number, body: string): Identity {
  const id = fingerprintOf(Buffer.from(`${stream} ${number} ${body}`));
  return { way: 'number', stream, number, id };
}

/** How Core recognises a post by its body. */
export function byBody(body: string): Identity {
  return { way: 'body', id: fingerprintOf(Buffer.from(body)) };
}
