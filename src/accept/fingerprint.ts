import { ingestModule, inputStart } from '../rows/module.ts';

/** 128 bits, six a character. */
const textBytes = 22;

/**
 * What tells a body from all others of its node: 128 bits of MurmurHash3 (assembly/fingerprint.ts) as
 * 22 characters of base64url. Of a million posts of one node two have the same one by chance with a
 * probability of 10^-27. It is no proof against a node that looks for two such bodies; of what that
 * node reports, the second one would be taken for a copy of the first.
 */
export function fingerprintOf(body: Uint8Array): string {
  ingestModule()
    .memory(inputStart + body.length + textBytes)
    .set(body, inputStart);
  return fingerprintAt(inputStart, body.length, inputStart + body.length);
}

/**
 * The same of bytes that lie in the module's memory, at `input`; it needs 22 bytes there at `spare`.
 */
export function fingerprintAt(input: number, length: number, spare: number): string {
  const { exports, memory } = ingestModule();
  const bytes = memory(spare + textBytes);
  exports.fingerprint(input, length, spare);
  return Buffer.from(bytes.buffer, spare, textBytes).toString('latin1');
}
