import type { Harmless } from '../settings/harmless.ts';

/** Stands in an exported file for what was left out: apply keeps the stored value there. */
export const keptMarker = '<kept>';
/** Stands in printed text for the same. */
export const maskText = '(secret)';

/** A copy of settings in which the marker stands for everything that is not known to be harmless. */
export function withoutSecrets(value: unknown, harmless: Harmless | undefined): unknown {
  return replaceSecrets(value, harmless, keptMarker);
}

/** A copy of settings to be printed. */
export function maskSecrets(value: unknown, harmless: Harmless | undefined): unknown {
  return replaceSecrets(value, harmless, maskText);
}

/** What is known of a field of settings of which this much is known. */
export function harmlessField(harmless: Harmless | undefined, field: string): Harmless | undefined {
  if (harmless === undefined || typeof harmless === 'function') return undefined;
  return Object.hasOwn(harmless, field) ? harmless[field] : undefined;
}

function replaceSecrets(value: unknown, harmless: Harmless | undefined, by: string): unknown {
  if (harmless === undefined) return by;
  if (Array.isArray(value)) return value.map((inner) => replaceSecrets(inner, harmless, by));
  if (typeof value !== 'object' || value === null) {
    return typeof harmless === 'function' && harmless(value) ? value : by;
  }
  if (typeof harmless === 'function') return by;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [
      name,
      replaceSecrets(inner, harmlessField(harmless, name), by),
    ]),
  );
}

/** Whether a text somewhere in a value stands for something that was left out. */
export function holdsPlaceholder(value: unknown, placeholders: readonly string[]): boolean {
  if (typeof value === 'string') return placeholders.includes(value);
  if (typeof value !== 'object' || value === null) return false;
  return Object.values(value).some((inner) => holdsPlaceholder(inner, placeholders));
}

type Missing = (path: (string | number)[]) => void;

/**
 * A copy of settings from a file with the stored value at every marker. `missing` is called with the
 * place of a marker for which nothing is stored, or for which it is not certain what.
 */
export function withKeptSecrets(
  given: unknown,
  stored: unknown,
  missing: Missing,
  path: (string | number)[] = [],
): unknown {
  if (given === keptMarker) {
    if (stored !== undefined) return stored;
    missing(path);
    return given;
  }
  if (Array.isArray(given)) {
    return elementsKept(given, Array.isArray(stored) ? stored : [], missing, path);
  }
  if (typeof given !== 'object' || given === null) return given;
  const from = typeof stored === 'object' && stored !== null ? stored : {};
  return Object.fromEntries(
    Object.entries(given).map(([name, inner]) => {
      const own = Object.hasOwn(from, name) ? (from as Record<string, unknown>)[name] : undefined;
      return [name, withKeptSecrets(inner, own, missing, [...path, name])];
    }),
  );
}

/**
 * A secret belongs to the element that it was in, which may stand elsewhere in the file, or no longer:
 * the password of one server must not go to another one.
 */
function elementsKept(
  given: readonly unknown[],
  stored: readonly unknown[],
  missing: Missing,
  path: (string | number)[],
): unknown[] {
  return given.map((element, index) => {
    if (!holdsPlaceholder(element, [keptMarker])) return element;
    const from = storedElement(given, stored, index);
    return withKeptSecrets(element, from, missing, [...path, index]);
  });
}

/**
 * The stored element that a given one was made of: the one that says the same beside the markers. If none
 * does, it is the one at the same place, provided that all others are at their places.
 */
function storedElement(
  given: readonly unknown[],
  stored: readonly unknown[],
  index: number,
): unknown {
  const inPlace = given.length === stored.length;
  if (inPlace && saysTheSame(given[index], stored[index])) return stored[index];
  const same = stored.filter((element) => saysTheSame(given[index], element));
  if (same.length > 0) return same.length === 1 ? same[0] : undefined;
  if (!inPlace) return undefined;
  const others = given.every((element, at) => at === index || saysTheSame(element, stored[at]));
  return others ? stored[index] : undefined;
}

/** Whether two values are equal. A marker is equal to anything. */
function saysTheSame(given: unknown, stored: unknown): boolean {
  if (given === keptMarker) return stored !== undefined;
  if (typeof given !== 'object' || given === null) return given === stored;
  if (typeof stored !== 'object' || stored === null) return false;
  if (Array.isArray(given) !== Array.isArray(stored)) return false;
  const [ours, theirs] = [new Map(Object.entries(given)), new Map(Object.entries(stored))];
  if (ours.size !== theirs.size) return false;
  return [...ours].every(([name, inner]) => saysTheSame(inner, theirs.get(name)));
}
