import { CoreError } from '../errors.ts';

const [quote, backslash, comma, bracket, brace] = [0x22, 0x5c, 0x2c, 0x5b, 0x7b];

/**
 * Refuses a body of more JSON values than any contract needs before the parser makes objects of them:
 * 4 MiB of `[[[[` or `{},{},` take it half a second and 300 MB. It counts what each value but the
 * first needs: an opening bracket or a comma outside of strings. It does not look whether the body is JSON.
 * @throws CoreError VALIDATION_FAILED.
 */
export function requireFewValues(body: Uint8Array, valuesMax: number): void {
  let values = 0;
  let isString = false;
  for (let at = 0; at < body.length; at += 1) {
    const byte = body[at];
    if (byte === quote) isString = !isString;
    else if (isString) {
      if (byte === backslash) at += 1;
    } else if (byte === comma || byte === bracket || byte === brace) values += 1;
  }
  if (values <= valuesMax) return;
  throw new CoreError('VALIDATION_FAILED', 'The body is not what this route takes', {
    issues: [{ path: '', message: `Too many values: over ${valuesMax}` }],
  });
}
