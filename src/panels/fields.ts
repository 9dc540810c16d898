import { z } from 'zod';
import { CoreError, issuePath } from '../errors.ts';
import { readInstant } from './instant.ts';

// Fields as panels write them: SQLite holds whatever was put in, JSON has numbers as text or not, CSV has
// text only.

const whole = z
  .union([z.number(), z.bigint(), z.string().regex(/^-?\d{1,20}$/, 'Must be a whole number')])
  .transform(Number);

/** Bytes, from 0; nothing is 0. */
export const byteCount = whole
  .pipe(z.int('Must be whole bytes within 2^53').nonnegative('Must not be negative'))
  .nullish()
  .transform((value) => value ?? 0);

/** A whole number, also a negative one; nothing is 0. */
export const integer = whole
  .pipe(z.int('Must be a whole number within 2^53'))
  .nullish()
  .transform((value) => value ?? 0);

export const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '');

/** True unless it is false, 0 or text for it. */
export const flag = z
  .union([z.boolean(), z.number(), z.bigint(), z.string()])
  .nullish()
  .transform(
    (value) => !(value === null || value === undefined) && !/^(false|0|f|no)?$/i.test(`${value}`),
  );

/** A point in time; null for never. What names no zone is UTC, as the panels that write it mean it. */
export const instant = z
  .union([z.number(), z.bigint(), z.string()])
  .nullish()
  .transform((value, context) => {
    const read = readInstant(`${value ?? ''}`, 'UTC');
    if ('at' in read) return read.at;
    context.addIssue({ code: 'custom', message: read.fault });
    return z.NEVER;
  });

/**
 * Reads a record of a panel.
 * @returns the value, or a fault that names the first field that is wrong.
 */
export function readRecord<T>(
  schema: z.ZodType<T>,
  given: unknown,
): { value: T } | { fault: string } {
  const read = schema.safeParse(given);
  if (read.success) return { value: read.data };
  const issue = read.error.issues[0];
  const where = issuePath(issue?.path ?? []);
  return { fault: `${where === '' ? '' : `${where}: `}${issue?.message ?? 'cannot be read'}` };
}

/** JSON in a text column. */
export function readJson(given: unknown): unknown {
  if (typeof given !== 'string') return given;
  try {
    return JSON.parse(given);
  } catch (cause) {
    throw new CoreError('INVALID_ARGUMENT', 'a column holds JSON that cannot be read', { cause });
  }
}
