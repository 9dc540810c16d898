import type pg from 'pg';
import type { Failpoint } from '../failpoints.ts';
import { addOutboundTraffic } from '../nodes/outbounds.ts';
import { inClientTransaction } from '../stores/postgres.ts';
import { addTraffic } from '../subscriptions/settle-counters.ts';
import type { Segment } from './seal.ts';
import { sumOutbounds, sumUsage } from './sums.ts';

/**
 * Adds a segment's sums to the counters and marks it settled, in one transaction: both happened or
 * neither. The state is changed first, and only from `sealed`, so that of two workers one adds.
 */
export async function settleSegment(
  client: pg.PoolClient,
  segment: Segment,
  block: Buffer,
  failpoint?: Failpoint | undefined,
): Promise<void> {
  await inClientTransaction(client, async () => {
    const { rowCount } = await client.query(
      `UPDATE segments SET state = 'settled', settled_at = now(), last_error = NULL
       WHERE id = $1 AND state = 'sealed'`,
      [segment.id],
    );
    if (rowCount !== 1) return;
    const unknownRows = await addSums(client, segment, block);
    if (unknownRows > 0) {
      await client.query('UPDATE streams SET unknown_rows = unknown_rows + $2 WHERE stream = $1', [
        segment.stream,
        unknownRows,
      ]);
    }
    await failpoint?.('settle:before-commit');
  });
}

/** Returns how many rows count towards nothing, because what they name does not exist. */
async function addSums(client: pg.PoolClient, segment: Segment, block: Buffer): Promise<number> {
  if (segment.kind === 'usage') {
    const sums = sumUsage(block);
    if (sums.subscriptionIds.length === 0) return 0;
    const { known } = await addTraffic(client, sums);
    return sums.rows.reduce(
      (unknown, rows, index) =>
        known.has(sums.subscriptionIds[index] ?? 0) ? unknown : unknown + rows,
      0,
    );
  }
  if (segment.kind === 'outbound') {
    const { dropped } = await addOutboundTraffic(client, sumOutbounds(block));
    return dropped;
  }
  return 0;
}
