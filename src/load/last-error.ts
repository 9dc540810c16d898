import type pg from 'pg';

/** For the operator (`core status`). The failure itself matters more than that this was written. */
export async function recordError(
  client: pg.PoolClient,
  segmentIds: readonly number[],
  cause: unknown,
): Promise<void> {
  const message = cause instanceof Error ? cause.message : String(cause);
  await client
    .query(
      `UPDATE segments SET last_error = $2 WHERE id = ANY ($1::bigint[]) AND state = 'sealed'`,
      [segmentIds, message.slice(0, 1_000)],
    )
    .catch(() => undefined);
}
