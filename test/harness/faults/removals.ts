import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import type { ApiSeams } from '../../../src/app/api.ts';
import type { WorkerSeams } from '../../../src/app/worker.ts';
import type { Failpoint } from '../../../src/failpoints.ts';
import type { LoadDeps } from '../../../src/load/load-stream.ts';
import type { Victim } from './killable.ts';
import { type FaultMix, wholeMix } from './schedule.ts';

export const removals = ['idempotency', 'readback', 'settle-transaction', 'aof', 'lock'] as const;
/**
 * A protection that the suite can do without, to show that its oracle then notices. `aof` is taken
 * from Redis (servers.ts), the others are taken from Core here, from outside of its code.
 */
export type Removal = (typeof removals)[number];

/** Every post looks new to Core. */
const withoutIdempotency: ApiSeams = {
  spool: (spool) => ({
    ...spool,
    append: (kind, nodeId, block) =>
      spool.append(kind, nodeId, { ...block, key: `${block.key}:${randomUUID()}` }),
  }),
};

export function apiSeams(removal: Removal): ApiSeams {
  return removal === 'idempotency' ? withoutIdempotency : {};
}

export function workerSeams(removal: Removal): WorkerSeams {
  const { rewrite } = rewrites[removal] ?? {};
  if (rewrite === undefined) return {};
  return {
    load: (deps) => ({
      ...deps,
      pool: rewriting(deps.pool, () => rewrite(deps)),
      // Asked by the rewrite instead, where the transaction would have protected something.
      ...(removal === 'settle-transaction'
        ? { failpoint: exceptBeforeCommit(deps.failpoint) }
        : {}),
    }),
  };
}

type Result = pg.QueryResult<Record<string, unknown>>;
type Query = (text: string, values?: readonly unknown[]) => Promise<Result>;
/** Stands between a connection and its queries, for as long as the connection is out. */
type Rewrite = (text: string, send: () => Promise<Result>, query: Query) => Promise<Result>;

const noRows = { rows: [], rowCount: 0 } as unknown as Result;

const rewrites: Partial<Record<Removal, { rewrite: (deps: LoadDeps) => Rewrite }>> = {
  /** Everybody gets the stream's lock. */
  lock: {
    rewrite: () => async (text, send) => {
      if (text.includes('pg_try_advisory_lock(')) {
        return { ...noRows, rows: [{ locked: true }] };
      }
      return text.includes('pg_advisory_unlock(') ? noRows : send();
    },
  },
  /** Every attempt believes that it is the first one, so nothing is counted before an insert. */
  readback: {
    rewrite: () => async (_text, send) => {
      const result = await send();
      for (const row of result.rows ?? []) if ('attempts' in row) row['attempts'] = 0;
      return result;
    },
  },
  /** The statements of a settle are committed one by one. */
  'settle-transaction': {
    rewrite: (deps) => {
      let begun = true;
      let settling = false;
      return async (text, send, query) => {
        if (text === 'BEGIN') {
          begun = false;
          return noRows;
        }
        if (settling && (text === 'COMMIT' || text === 'ROLLBACK')) {
          settling = false;
          begun = true;
          return noRows;
        }
        if (begun || settling) return send();
        if (!text.includes("SET state = 'settled'")) {
          begun = true;
          await query('BEGIN');
          return send();
        }
        settling = true;
        const result = await send();
        await deps.failpoint?.('settle:before-commit');
        return result;
      };
    },
  },
};

function exceptBeforeCommit(failpoint: Failpoint | undefined): Failpoint | undefined {
  return (name) => (name === 'settle:before-commit' ? undefined : failpoint?.(name));
}

/** The pool with a rewrite before every query of a connection that was taken out of it. */
function rewriting(pool: pg.Pool, create: () => Rewrite): pg.Pool {
  return replacing(pool, 'connect', async () => {
    const client = await pool.connect();
    const rewrite = create();
    const query: Query = (text, values) => client.query(text, values as unknown[]);
    return replacing(client, 'query', (text: string, values?: readonly unknown[]) =>
      rewrite(text, () => query(text, values), query),
    );
  });
}

/** `target` with one method replaced; all others stay bound to it. */
function replacing<T extends object>(target: T, name: keyof T, method: unknown): T {
  return new Proxy(target, {
    get(from, key) {
      if (key === name) return method;
      const value = Reflect.get(from, key, from);
      return typeof value === 'function' ? value.bind(from) : value;
    },
  });
}

const at = (...pairs: [Victim, ...FaultMix['pairs'][number]['failpoint'][]][]): FaultMix['pairs'] =>
  pairs.flatMap(([victim, ...failpoints]) =>
    failpoints.map((failpoint) => ({ victim, failpoint })),
  );

/** The faults that each protection is there for, more often than they would come up by themselves. */
export const removalMix: Record<Removal, FaultMix> = {
  idempotency: {
    ...wholeMix,
    pairs: at(['api', 'accept:after-append'], ['redis', 'accept:after-append']),
  },
  readback: {
    ...wholeMix,
    pairs: at(['worker', 'insert:after', 'settle:before'], ['clickhouse', 'insert:before']),
  },
  'settle-transaction': {
    ...wholeMix,
    pairs: at(['worker', 'settle:before-commit'], ['postgres', 'settle:before-commit']),
  },
  aof: { ...wholeMix, pairs: at(['redis', 'accept:after-append', 'seal:before', 'insert:before']) },
  lock: {
    ...wholeMix,
    pairs: [],
    extraShare: 0,
    holdShare: 1,
    holdAt: ['insert:send'],
    workers: 2,
  },
};
