import assert from 'node:assert/strict';
import type pg from 'pg';
import type { Failpoint } from '../failpoints.ts';
import { addOutboundTraffic } from '../nodes/outbound-traffic.ts';
import type { OutboundPayload, Payload } from '../rows/segment-rows.ts';
import { createOutboundSums, createUsageSums } from '../rows/sums.ts';
import type { Kind } from '../spool/streams.ts';
import { type TrimRedis, trimSettled } from '../spool/trim.ts';
import { inClientTransaction } from '../stores/postgres.ts';
import { addTraffic } from '../subscriptions/add-traffic.ts';
import { boundSilence } from './hold.ts';
import { noteFailure, type Overtaken, type Segment } from './seal.ts';

/**
 * Segments of one stream that are inserted and will be settled together. So Core updates a
 * subscription with steady traffic once a batch instead of once a segment.
 */
export interface Batch {
  stream: string;
  segmentIds: number[];
  /** What its stream entries take in Redis, where they stay until the batch is settled. */
  bytes: number;
  sums: GroupSums;
  /** On a clock that never goes back. */
  openedAtMs: number;
}

/** What a batch's rows add to the counters. */
interface GroupSums {
  /** Adds the rows of a segment that count: all but its rejected ones. */
  add(payload: Payload | OutboundPayload): void;
  /** How many counters the batch changes. */
  readonly size: number;
  /** Adds the sums to the counters in the running transaction; returns how many rows have no counter. */
  addToCounters(client: pg.PoolClient): Promise<number>;
}

/**
 * How a settle ended. If another run has settled one segment of the batch, nothing of the batch is
 * settled: the sums hold rows that the other run has counted.
 */
export type Settled = { outcome: 'settled' } | Overtaken;

export function openBatch({ stream, kind }: Pick<Segment, 'stream' | 'kind'>): Batch {
  const sums = createGroupSums(kind);
  return { stream, segmentIds: [], bytes: 0, sums, openedAtMs: performance.now() };
}

export function addToBatch(
  batch: Batch,
  segment: Pick<Segment, 'id' | 'bytes'>,
  payloads: readonly (Payload | OutboundPayload)[],
): void {
  for (const payload of payloads) batch.sums.add(payload);
  batch.segmentIds.push(segment.id);
  batch.bytes += segment.bytes;
}

function createGroupSums(kind: Kind): GroupSums {
  if (kind === 'usage') {
    const sums = createUsageSums();
    return {
      add(payload) {
        assert(payload.format === 'Native', 'only usage rows have counters of subscriptions');
        sums.add(payload);
      },
      get size() {
        return sums.size;
      },
      async addToCounters(client) {
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
      addToCounters: async (client) => (await addOutboundTraffic(client, sums.list())).dropped,
    };
  }
  return { add: () => undefined, size: 0, addToCounters: async () => 0 };
}

/**
 * Adds the sums of a batch to the counters and marks its segments settled, in one transaction: both
 * happen or neither. It changes the segments first, and only those that are still `sealed`. Only one
 * transaction can do that to a segment, so its rows count once without a lock.
 */
export async function settleBatch(
  client: pg.PoolClient,
  batch: Pick<Batch, 'stream' | 'segmentIds' | 'sums'>,
  failpoint?: Failpoint | undefined,
): Promise<Settled> {
  const { stream, segmentIds, sums } = batch;
  const markAndAdd = async (): Promise<Settled> => {
    const { rowCount } = await client.query(
      `UPDATE segments SET state = 'settled', settled_at = now(), last_error = NULL
       WHERE id = ANY ($1::bigint[]) AND state = 'sealed'`,
      [segmentIds],
    );
    if (rowCount !== segmentIds.length) return { outcome: 'overtaken', segmentIds };
    const unknownRows = await sums.addToCounters(client);
    if (unknownRows > 0) {
      await client.query('UPDATE streams SET unknown_rows = unknown_rows + $2 WHERE stream = $1', [
        stream,
        unknownRows,
      ]);
    }
    await failpoint?.('settle:before-commit');
    return { outcome: 'settled' };
  };
  return inClientTransaction(client, markAndAdd, ({ outcome }) => outcome === 'settled');
}

/** Settles batches while the run goes on sealing and inserting: one batch at a time, in order. */
export interface Settler {
  /**
   * Waits for the batch before. Then it begins to settle this one, unless that one was overtaken.
   * @returns how the batch before ended.
   * @throws its failure.
   */
  begin(batch: Batch): Promise<Settled>;
  /** Waits for the last batch. @returns how it ended. @throws its failure. */
  end(): Promise<Settled>;
}

interface SettlerDeps {
  pool: pg.Pool;
  redis: TrimRedis;
  failpoint?: Failpoint | undefined;
  silentMsMax?: number | undefined;
}

/**
 * An update of hundreds of thousands of counters takes seconds, and the run goes on inserting meanwhile.
 * So a batch has a connection of its own, which does not have the stream's lock.
 */
export function createSettler(deps: SettlerDeps): Settler {
  let running: Promise<Settled> | undefined;
  const end = async (): Promise<Settled> => {
    const last = running;
    running = undefined;
    return (await last) ?? { outcome: 'settled' };
  };
  return {
    async begin(batch) {
      const before = await end();
      if (before.outcome === 'overtaken') return before;
      running = settleAndTrim(deps, batch);
      // The next call throws its failure. Until then Node must not call it unhandled.
      running.catch(() => undefined);
      return before;
    },
    end,
  };
}

/** Settles a batch on its own connection, and trims what is settled. */
async function settleAndTrim(deps: SettlerDeps, batch: Batch): Promise<Settled> {
  const { failpoint } = deps;
  const client = await deps.pool.connect();
  let closes = true;
  try {
    // Without this bound, a worker that is frozen in the transaction keeps others from settling.
    await boundSilence(client, deps.silentMsMax);
    await failpoint?.('settle:before');
    const settled = await settleBatch(client, batch, failpoint);
    if (settled.outcome === 'settled') {
      await failpoint?.('settle:after');
      await failpoint?.('trim:before');
      await trimSettled(client, deps.redis, batch.stream);
      await failpoint?.('trim:after');
    }
    await boundSilence(client, 0);
    closes = false;
    return settled;
  } catch (cause) {
    await noteFailure(client, batch.segmentIds, cause);
    throw cause;
  } finally {
    client.release(closes);
  }
}
