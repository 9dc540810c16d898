/** SQLSTATEs by which Core knows what a statement met. */
export const sqlStates = {
  /** A row refers to one that does not exist. */
  foreignKeyViolation: '23503',
  /** There is a second row with the same key. */
  uniqueViolation: '23505',
} as const;

/** The SQLSTATE of what Postgres' client threw. */
export function sqlStateOf(thrown: unknown): unknown {
  return thrown instanceof Error ? (thrown as { code?: unknown }).code : undefined;
}
