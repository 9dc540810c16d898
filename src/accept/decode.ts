import type { z } from 'zod';
import { limits } from '../contract/limits.ts';
import { CoreError, type Issue, issuePath } from '../errors.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });

/**
 * Turns a body into the value that its schema describes. The schemas name the fields of every body;
 * the scanner (assembly/usage.ts) also names those of usage.
 * @throws CoreError MALFORMED_JSON, or VALIDATION_FAILED with the first 20 faults.
 */
export function decodeBody<S extends z.ZodType>(schema: S, body: Uint8Array): z.output<S> {
  const parsed = schema.safeParse(parseJson(body));
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, limits.issuesMax).map(toIssue);
  const stopped = issues.length < limits.issuesMax ? '' : '; the check stopped at this many faults';
  throw new CoreError('VALIDATION_FAILED', `The body is not what this route takes${stopped}`, {
    issues,
  });
}

/**
 * Decodes and remembers bodies, because a node that changes nothing sends the same heartbeat for months. It
 * remembers bodies of up to `bytesMax` bytes, and forgets all of them when there are `bodiesMax`. Callers
 * share the values, so it freezes them, one level deep: the schema must describe a flat value.
 * @throws as decodeBody.
 */
export function createDecodeMemory<S extends z.ZodType>(
  schema: S,
  bounds: { bodiesMax: number; bytesMax: number },
): (body: Uint8Array) => z.output<S> {
  // The key is a hash, because making a string of each body would be most of the work. If several bodies
  // share a hash, the last one is remembered.
  const known = new Map<number, { body: Uint8Array; decoded: z.output<S> }>();
  return (body) => {
    if (body.length > bounds.bytesMax) return decodeBody(schema, body);
    const hash = hashOf(body);
    const remembered = known.get(hash);
    if (remembered !== undefined && areEqual(remembered.body, body)) return remembered.decoded;
    const decoded = Object.freeze(decodeBody(schema, body)) as z.output<S>;
    if (known.size >= bounds.bodiesMax) known.clear();
    known.set(hash, { body: new Uint8Array(body), decoded });
    return decoded;
  };
}

/** FNV-1a without its top two bits, so that V8 keeps it as a small integer. */
function hashOf(body: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < body.length; index += 1) {
    hash = Math.imul(hash ^ (body[index] ?? 0), 0x01000193);
  }
  return hash & 0x3fff_ffff;
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index += 1) {
    if (a[index] !== b[index]) return false;
  }
  return true;
}

const [quote, backslash, comma, bracket, brace] = [0x22, 0x5c, 0x2c, 0x5b, 0x7b];

/**
 * Refuses a body with more JSON values than any contract needs, before the parser makes objects of
 * them: 4 MiB of `[[[[` or `{},{},` take the parser half a second and 300 MB. Every value but the
 * first needs an opening bracket or a comma outside of strings, so this counts them. It does not
 * check that the body is JSON.
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

function parseJson(body: Uint8Array): unknown {
  try {
    return JSON.parse(utf8.decode(body));
  } catch (cause) {
    // The parser's own message may quote the body, so Core tells the node only the fact.
    throw new CoreError('MALFORMED_JSON', 'The body is not valid JSON', { cause });
  }
}

function toIssue(issue: z.core.$ZodIssue): Issue {
  return { path: issuePath(issue.path), message: issue.message };
}
