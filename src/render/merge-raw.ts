import { foldedKey, isObject } from '../protocols/raw.ts';
import { withSortedKeys } from './order.ts';

type Json = Record<string, unknown>;

/** Lists of the root that `raw` adds to. Everywhere else an array of `raw` replaces Core's. */
const addedLists = ['inbounds', 'outbounds', 'routing.rules', 'routing.balancers'];

/**
 * Merges an operator's `raw` into an object that Core rendered. Objects are merged field by field, and anything
 * else of `raw` replaces what Core rendered. A key that Xray takes for one of Core's is that one, whatever its
 * case: beside Core's it would replace the whole of it.
 */
export function mergeRaw<T extends object>(rendered: T, raw: Json | undefined): T {
  return raw === undefined ? rendered : (merged(rendered, withSortedKeys(raw), '', []) as T);
}

/** The same for the root of a configuration, where `raw` may only add to some lists. */
export function mergeRawRoot<T extends object>(rendered: T, raw: Json | undefined): T {
  return raw === undefined
    ? rendered
    : (merged(rendered, withSortedKeys(raw), '', addedLists) as T);
}

function merged(ours: unknown, theirs: unknown, path: string, lists: readonly string[]): unknown {
  if (Array.isArray(ours) && Array.isArray(theirs) && lists.includes(path)) {
    return [...ours, ...theirs];
  }
  if (!isObject(ours) || !isObject(theirs)) return theirs;
  const result = new Map(Object.entries(ours));
  const byFolded = new Map([...result.keys()].map((name) => [foldedKey(name), name]));
  for (const [given, value] of Object.entries(theirs)) {
    const name = result.has(given) ? given : (byFolded.get(foldedKey(given)) ?? given);
    const at = path === '' ? name : `${path}.${name}`;
    result.set(name, result.has(name) ? merged(result.get(name), value, at, lists) : value);
  }
  return Object.fromEntries(result);
}
