import assert from 'node:assert/strict';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import { addOutboundTraffic } from '../nodes/outbound-traffic.ts';
import type { OutboundPayload, Payload } from '../rows/segment-rows.ts';
import { createOutboundSums, createUsageSums } from '../rows/sums.ts';
import type { Kind } from '../spool/streams.ts';
import { inClientTransaction } from '../stores/postgres.ts';
import { addTraffic } from '../subscriptions/add-traffic.ts';

/** What a group of inserted segments of one stream adds to the counters, kept until it is settled. */
export interface GroupSums {
  /** Rows that count: of a segment all but its rejected ones. */
  add(payload: Payload | OutboundPayload): void;
  /** Counters that the group will touch. */
  readonly size: number;
  /** Adds the sums in the running transaction; returns how many rows count towards nothing. */
  settle(client: pg.PoolClient): Promise<number>;
}

export function createGroupSums(kind: Kind): GroupSums {
  if (kind === 'usage') {
    const sums = createUsageSums();
    return {
      add(payload) {
        assert(payload.format === 'Native', 'what is counted are usage rows');
        sums.add(payload);
      },
      get size() {
        return sums.size;
      },
      async settle(client) {
        const { knownRows } = await addTraffic(client, sums.columns());
        return sums.rows - knownRows;
      },
    };
  }
  if (kind === 'outbound') {
    const sums = createOutboundSums();
    return {
      add: ({ bytes }) => sums.add(bytes),
      get size() {
        return sums.size;
      },
      settle: async (client) => (await addOutboundTraffic(client, sums.list())).dropped,
    };
  }
  return { add: () => undefined, size: 0, settle: async () => 0 };
}

/**
 * Adds the sums of a group of segments to the counters and marks the segments settled, in one
 * transaction: both happened or neither. The states are changed first, and only from `sealed`, so
 * that of two workers one adds.
 * @throws CoreError STORE_UNAVAILABLE where not all of them were sealed any more. Nothing is settled
 * then: the sums hold rows that another worker has counted, so they are worth nothing, and the next
 * run starts from what Postgres says.
 */
export async function settleGroup(
  client: pg.PoolClient,
  group: { stream: string; segmentIds: readonly number[]; sums: GroupSums },
  failpoint?: Failpoint | undefined,
): Promise<void> {
  const { stream, segmentIds, sums } = group;
  await inClientTransaction(client, async () => {
    const { rowCount } = await client.query(
      `UPDATE segments SET state = 'settled', settled_at = now(), last_error = NULL
       WHERE id = ANY ($1::bigint[]) AND state = 'sealed'`,
      [segmentIds],
    );
    if (rowCount !== segmentIds.length) {
      throw new CoreError(
        'STORE_UNAVAILABLE',
        `Another worker has settled some of the segments ${segmentIds.join(', ')} of ${stream}`,
      );
    }
    const unknownRows = await sums.settle(client);
    if (unknownRows > 0) {
      await client.query('UPDATE streams SET unknown_rows = unknown_rows + $2 WHERE stream = $1', [
        stream,
        unknownRows,
      ]);
    }
    await failpoint?.('settle:before-commit');
  });
}
