import type { z } from 'zod';
import { limits } from '../contract/limits.ts';
import { CoreError, type Issue } from '../errors.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });

/**
 * A body to the value its schema describes.
 * @throws CoreError MALFORMED_JSON, or VALIDATION_FAILED with the first 20 places at fault.
 */
export function decodeBody<S extends z.ZodType>(schema: S, body: Uint8Array): z.output<S> {
  const parsed = schema.safeParse(parseJson(body));
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, limits.issuesMax).map(toIssue);
  throw new CoreError('VALIDATION_FAILED', 'The body is not what this route takes', { issues });
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
): (body: Buffer) => z.output<S> {
  const known = new Map<string, z.output<S>>();
  return (body) => {
    if (body.length > limits.bytesMax) return decodeBody(schema, body);
    // Every byte is one character here, so that two texts are the same only where their bodies are.
    const bytes = body.toString('latin1');
    const remembered = known.get(bytes);
    if (remembered !== undefined) return remembered;
    const decoded = decodeBody(schema, body);
    if (known.size >= limits.bodiesMax) known.clear();
    known.set(bytes, Object.freeze(decoded) as z.output<S>);
    return decoded;
  };
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

/** `['entries', 3, 'bytesUp']` to `entries[3].bytesUp`. */
function issuePath(path: readonly PropertyKey[]): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else text += text === '' ? String(part) : `.${String(part)}`;
  }
  return text;
}
