/**
 * Compares by UTF-16 code unit: unlike localeCompare, the same on every machine.
 */
export function byText(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

/**
 * A copy of a JSON value with the keys of every object in sorted order, so that two objects that
 * say the same also read the same. Values from a jsonb column are at most as deep as Postgres'
 * parser allows.
 */
export function withSortedKeys<T>(value: T): T {
  if (Array.isArray(value)) return value.map(withSortedKeys) as T;
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value)
    .sort(([left], [right]) => byText(left, right))
    .map(([key, inner]) => [key, withSortedKeys(inner)]);
  // fromEntries also keeps a key named __proto__ a plain key.
  return Object.fromEntries(entries) as T;
}
