/**
 * How Core recognises a post that comes again. An id is 64 bits and tells a post from all others of its
 * node and kind.
 */
export type Identity =
  /** By its body: the id is the fingerprint of the body. */
  | { way: 'body'; id: bigint }
  /**
   * By its idempotency key, while Core keeps the fingerprint of the body with it, so that the key with
   * another body is a conflict. After that by the id, which is made of both.
   */
  | { way: 'key'; key: bigint; body: bigint; id: bigint }
  /** By its number, for ever. The id is made of stream, number and body. */
  | { way: 'number'; stream: string; number: number; id: bigint }
  /** Each post is new. The id lets Core repeat a flush if the answer was lost. */
  | { way: 'flush'; id: string };
