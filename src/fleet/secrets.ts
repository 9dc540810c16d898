import type { Harmless } from '../settings/harmless.ts';

/** Stands in an exported file for a secret. `core apply` keeps the stored value there. */
export const keptMarker = '<kept>';
/** Stands in printed text for a secret. */
export const maskText = '(secret)';

/** A copy of settings for an export: the marker replaces everything that is not known to be harmless. */
export function withoutSecrets(value: unknown, harmless: Harmless | undefined): unknown {
  return replaceSecrets(value, harmless, keptMarker);
}

/** A copy of settings for a person to read: the mask replaces the same. */
export function maskSecrets(value: unknown, harmless: Harmless | undefined): unknown {
  return replaceSecrets(value, harmless, maskText);
}

/** What may be shown of a field. Undefined if nothing. */
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

/** Whether a value contains one of these placeholders, however deep. */
export function holdsPlaceholder(value: unknown, placeholders: readonly string[]): boolean {
  if (typeof value === 'string') return placeholders.includes(value);
  if (typeof value !== 'object' || value === null) return false;
  return Object.values(value).some((inner) => holdsPlaceholder(inner, placeholders));
}

type Missing = (path: readonly (string | number)[]) => void;

/**
 * A copy of settings from a file with the stored value at every marker.
 * @param missing Called with the place of a marker if Core has no value for it, or cannot be certain
 * which value.
 */
export function withKeptSecrets(
  given: unknown,
  stored: unknown,
  missing: Missing,
  path: readonly (string | number)[] = [],
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
 * Finds the stored element of each given one before it fills in its secrets, because the file may have
 * moved or removed elements: one server must never get another server's password.
 */
function elementsKept(
  given: readonly unknown[],
  stored: readonly unknown[],
  missing: Missing,
  path: readonly (string | number)[],
): unknown[] {
  return given.map((element, index) => {
    if (!holdsPlaceholder(element, [keptMarker])) return element;
    const from = storedElement(given, stored, index);
    return withKeptSecrets(element, from, missing, [...path, index]);
  });
}

/**
 * The stored element that a given one was exported from: the one that equals it apart from the markers.
 * If none does, the element was changed. Then it is the one at the same place, if all other elements
 * are still at theirs.
 */
function storedElement(
  given: readonly unknown[],
  stored: readonly unknown[],
  index: number,
): unknown {
  const inPlace = given.length === stored.length;
  if (inPlace && equalsStored(given[index], stored[index])) return stored[index];
  const same = stored.filter((element) => equalsStored(given[index], element));
  if (same.length > 0) return same.length === 1 ? same[0] : undefined;
  if (!inPlace) return undefined;
  const others = given.every((element, at) => at === index || equalsStored(element, stored[at]));
  return others ? stored[index] : undefined;
}

/** Whether two values are equal, if a marker equals any value. */
function equalsStored(given: unknown, stored: unknown): boolean {
  if (given === keptMarker) return stored !== undefined;
  if (typeof given !== 'object' || given === null) return given === stored;
  if (typeof stored !== 'object' || stored === null) return false;
  if (Array.isArray(given) !== Array.isArray(stored)) return false;
  const [ours, theirs] = [new Map(Object.entries(given)), new Map(Object.entries(stored))];
  if (ours.size !== theirs.size) return false;
  return [...ours].every(([name, inner]) => equalsStored(inner, theirs.get(name)));
}
