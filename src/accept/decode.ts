import type { z } from 'zod';
import { limits } from '../contract/limits.ts';
import { CoreError, type Issue, issuePath } from '../errors.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });

/**
 * A body to the value its schema describes.
 * @throws CoreError MALFORMED_JSON, or VALIDATION_FAILED with the first 20 places at fault.
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
 * Decodes bodies that come again and again, byte by byte the same, from memory: a node that changes
 * nothing sends the same heartbeat for months. Bodies of up to `bytesMax` bytes are remembered, and
 * all forgotten once there are `bodiesMax`. Values are shared, so they are frozen; only flat ones
 * are frozen as a whole.
 * @throws as decodeBody.
 */
export function createDecodeMemory<S extends z.ZodType>(
  schema: S,
  limits: { bodiesMax: number; bytesMax: number },
): (body: Uint8Array) => z.output<S> {
  // By a hash in JavaScript: to make a string of a body first would be most of the work. Of several
  // bodies with one hash the last is remembered.
  const known = new Map<number, { body: Uint8Array; decoded: z.output<S> }>();
  return (body) => {
    if (body.length > limits.bytesMax) return decodeBody(schema, body);
    const hash = hashOf(body);
    const remembered = known.get(hash);
    if (remembered !== undefined && areEqual(remembered.body, body)) return remembered.decoded;
    const decoded = Object.freeze(decodeBody(schema, body)) as z.output<S>;
    if (known.size >= limits.bodiesMax) known.clear();
    known.set(hash, { body: new Uint8Array(body), decoded });
    return decoded;
  };
}

/** FNV-1a, less two of its bits, so that it is a small integer to V8. */
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

function parseJson(body: Uint8Array): unknown {
  try {
    return JSON.parse(utf8.decode(body));
  } catch (cause) {
    // The parser's own message may quote the body, so only the fact goes out.
    throw new CoreError('MALFORMED_JSON', 'The body is not valid JSON', { cause });
  }
}

function toIssue(issue: z.core.$ZodIssue): Issue {
  return { path: issuePath(issue.path), message: issue.message };
}
