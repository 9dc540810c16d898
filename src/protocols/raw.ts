import { z } from 'zod';

const bytesMax = 65_536;
const depthMax = 32;

type Json = Record<string, unknown>;

/** What Core itself writes, and what its accounting rests on. */
const reserved: readonly (readonly string[])[] = [
  ['tag'],
  ['listen'],
  ['port'],
  ['protocol'],
  ['settings', 'clients'],
  ['settings', 'users'],
];

/**
 * JSON that is merged into the rendered inbound: for what Core does not know. Objects are merged, and
 * anything else replaces what Core renders. Only Xray can check it.
 */
export const raw = rawObject(({ given, fault }) => {
  for (const path of reserved) {
    if (holds(given, path)) fault([...path], 'Is written by Core and cannot be replaced');
  }
  for (const name of namesLike(given, 'settings')) {
    if (!isObject(given[name])) fault([name], 'Must be an object');
  }
});

/** Any object within the bounds of `raw`. What Core writes itself is for `check` to refuse. */
export function rawObject(
  check: (of: { given: Json; fault: (path: string[], message: string) => void }) => void,
): z.ZodRecord<z.ZodString, ReturnType<typeof z.json>> {
  return z.record(z.string(), z.json()).superRefine((given, context) => {
    const fault = (path: string[], message: string): void => {
      context.addIssue({ code: 'custom', path, message });
    };
    check({ given, fault });
    if (isDeeperThan(given, depthMax)) fault([], `Must have ${depthMax} levels at most`);
    if (Buffer.byteLength(JSON.stringify(given)) > bytesMax) fault([], 'Must be 64 KiB at most');
  });
}

/**
 * What two keys have in common if Xray takes them for the same field. Go's reader of JSON ignores the case, and
 * takes U+017F for an s and U+212A for a k. Of two such keys it follows the later one.
 */
export function foldedKey(name: string): string {
  return name.toUpperCase().toLowerCase();
}

/** The keys of an object that Xray takes for this field. `field` is in Xray's own spelling. */
export function namesLike(given: Json, field: string): string[] {
  const folded = foldedKey(field);
  return Object.keys(given).filter((name) => foldedKey(name) === folded);
}

function holds(given: unknown, [first, ...rest]: readonly string[]): boolean {
  if (first === undefined) return true;
  return isObject(given) && namesLike(given, first).some((name) => holds(given[name], rest));
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether a JSON value has more levels than these. The recursion ends there, however deep the value is. */
export function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeperThan(inner, levels - 1));
}
