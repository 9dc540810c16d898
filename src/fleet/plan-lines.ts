import { isDeepStrictEqual } from 'node:util';
import type { LinkCounts } from '../nodes/linked.ts';
import { isObject } from '../protocols/raw.ts';
import type { Harmless } from '../settings/harmless.ts';
import { harmlessField, maskSecrets } from './secrets.ts';

/** One line of a plan as an operator reads it. Secrets are masked. */
export interface PlanLine {
  action: 'create' | 'change' | 'remove';
  /** Like `protocol VLESS on port 443 of node fra-1`. */
  object: string;
  changes: FieldChange[];
  /** What the operator should know of it besides. */
  note?: string;
  /** The protocols that end. */
  ends?: readonly number[];
  /** The names of the groups that a protocol has now and is going to have, if they differ. */
  moves?: { before: readonly string[]; after: readonly string[] };
  /** The links that end with these. `applyFleet` counts them. */
  links?: LinkCounts;
}

interface FieldChange {
  /** Like `reality.target`. */
  field: string;
  from: unknown;
  to: unknown;
}

/** Every field that differs, however deep. An array is one value. Secrets are masked. */
export function differences(
  from: unknown,
  to: unknown,
  harmless: Harmless | undefined,
  path: readonly string[] = [],
): FieldChange[] {
  if (isDeepStrictEqual(from, to)) return [];
  if (typeof harmless === 'object' && isObject(from) && isObject(to)) {
    const names = new Set([...Object.keys(from), ...Object.keys(to)]);
    return [...names].flatMap((name) =>
      differences(from[name], to[name], harmlessField(harmless, name), [...path, name]),
    );
  }
  return [maskedChange(path.join('.'), from, to, harmless)];
}

export function maskedChange(
  field: string,
  from: unknown,
  to: unknown,
  harmless: Harmless | undefined,
): FieldChange {
  const masked = (value: unknown): unknown =>
    value === undefined ? undefined : maskSecrets(value, harmless);
  return { field, from: masked(from), to: masked(to) };
}
