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
