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
export const raw = z.record(z.string(), z.json()).superRefine((given, context) => {
  const fault = (path: string[], message: string): void => {
    context.addIssue({ code: 'custom', path, message });
  };
  for (const path of reserved) {
    if (holds(given, path)) fault([...path], 'Is written by Core and cannot be replaced');
  }
  const { settings } = given;
  if (settings !== undefined && !isObject(settings)) fault(['settings'], 'Must be an object');
  if (depthOf(given) > depthMax) fault([], `Must have ${depthMax} levels at most`);
  if (Buffer.byteLength(JSON.stringify(given)) > bytesMax) fault([], 'Must be 64 KiB at most');
});

function holds(given: unknown, [first, ...rest]: readonly string[]): boolean {
  if (first === undefined) return true;
  return isObject(given) && Object.hasOwn(given, first) && holds(given[first], rest);
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function depthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  let deepest = 0;
  for (const inner of Object.values(value)) {
    deepest = Math.max(deepest, depthOf(inner));
    if (deepest > depthMax) break;
  }
  return deepest + 1;
}

/** `base` with `raw` merged into it. Objects are merged by key; anything else replaces. */
export function withRaw<T extends object>(base: T, given: unknown): T {
  return isObject(given) ? (merged(base, given) as T) : base;
}

/** The recursion is bounded by `depthMax`. */
function merged(base: unknown, given: unknown): unknown {
  if (!isObject(base) || !isObject(given)) return given;
  const entries = new Map(Object.entries(base));
  for (const [name, value] of Object.entries(given)) {
    entries.set(name, entries.has(name) ? merged(entries.get(name), value) : value);
  }
  return Object.fromEntries(entries);
}
