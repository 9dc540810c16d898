import type pg from 'pg';
import type { Failpoint } from '../failpoints.ts';
import { type TrimRedis, trimSettled } from '../spool/trim.ts';
import type { Group } from './group.ts';
import { recordError } from './last-error.ts';
import { boundSilence, silentMsMax } from './session.ts';
import { settleGroup } from './settle.ts';

interface SettleDeps {
  pool: pg.Pool;
  redis: TrimRedis;
  failpoint?: Failpoint | undefined;
  silentMsMax?: number | undefined;
}

/** Settles groups beside the run, which goes on sealing and inserting; one at a time, in order. */
export interface Settling {
  /** Waits for the group before, whose failure it throws, and begins with this one. */
  begin(group: Group): Promise<void>;
  /** Waits for the last group. @throws its failure. */
  end(): Promise<void>;
}

/**
 * Settling updates hundreds of thousands of counters, seconds in which the run would insert nothing.
 * It happens on a connection of its own, without the stream's lock. The lock is not what makes sums
 * count once: the transaction changes its segments from `sealed`, which only one can (settle.ts).
 */
export function createSettling(deps: SettleDeps): Settling {
  let running: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    const last = running;
    running = undefined;
    await last;
  };
  return {
    async begin(group) {
      await end();
      running = settle(deps, group);
      // Thrown by the next call; until then it must not count as unhandled.
      running.catch(() => undefined);
    },
    end,
  };
}

async function settle(deps: SettleDeps, { stream, segments, sums }: Group): Promise<void> {
  const segmentIds = segments.map((segment) => segment.id);
  const client = await deps.pool.connect();
  let destroy = true;
  try {
    // A worker that stands still in the transaction would keep another one from settling.
    await boundSilence(client, deps.silentMsMax ?? silentMsMax);
    await settleOrRecord(deps, client, { stream, segmentIds, sums });
    await deps.failpoint?.('trim:before');
    await trimSettled(client, deps.redis, stream);
    await deps.failpoint?.('trim:after');
    await boundSilence(client, 0);
    destroy = false;
  } finally {
    client.release(destroy);
  }
}

async function settleOrRecord(
  deps: SettleDeps,
  client: pg.PoolClient,
  group: Parameters<typeof settleGroup>[1],
): Promise<void> {
  try {
    await deps.failpoint?.('settle:before');
    await settleGroup(client, group, deps.failpoint);
    await deps.failpoint?.('settle:after');
  } catch (cause) {
    await recordError(client, group.segmentIds, cause);
    throw cause;
  }
}
