import type pg from 'pg';
import { inTransaction } from '../stores/postgres.ts';
import { deriveStatus } from './status.ts';

/** How many subscriptions one call takes; the rest follow a second later. */
const dueMax = 10_000;

/**
 * Marks subscriptions whose time is over as expired, records that, and bumps the nodes they were
 * served on, in one transaction. The worker calls it once a second. A subscription that a
 * transaction holds just now is left for the next call, so this waits for nobody.
 * @returns the ids of those that expired.
 */
export async function expireDue(pool: pg.Pool): Promise<number[]> {
  return inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ id: number }>(
      `SELECT id FROM subscriptions
       WHERE expires_at <= now() AND status IN ('active', 'limited')
       ORDER BY expires_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED`,
      [dueMax],
    );
    const changes = await deriveStatus(
      client,
      rows.map((row) => row.id),
    );
    return changes
      .filter((change) => change.after === 'expired')
      .map((change) => change.subscriptionId);
  });
}
