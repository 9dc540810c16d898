/** Compares UTF-16 code units, because localeCompare differs between machines. */
export function byText(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

/**
 * A copy of a JSON value with the keys of every object sorted, so that equal values give equal text.
 * The recursion is bounded: values come from jsonb columns, and Postgres' parser limits their depth.
 */
export function withSortedKeys<T>(value: T): T {
  if (Array.isArray(value)) return value.map(withSortedKeys) as T;
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value)
    .sort(([left], [right]) => byText(left, right))
    .map(([key, inner]) => [key, withSortedKeys(inner)]);
  // An assignment would treat the key `__proto__` differently.
  return Object.fromEntries(entries) as T;
}
