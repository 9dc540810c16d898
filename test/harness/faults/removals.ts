import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import type { ApiSeams } from '../../../src/app/api.ts';
import type { WorkerSeams } from '../../../src/app/worker.ts';
import type { Failpoint } from '../../../src/failpoints.ts';
import type { LoadDeps } from '../../../src/load/load-stream.ts';
import type { Victim } from './killable.ts';
import { type FaultMix, noMix, wholeMix } from './schedule.ts';

export const removals = [
  'idempotency',
  'numbers',
  'readback',
  'settle-transaction',
  'aof',
  'lock',
] as const;
/**
 * A protection that the suite can take away, to show that its oracle notices. servers.ts takes `aof`
 * from Redis. This file takes the others from Core, without a change of Core's code.
 */
export type Removal = (typeof removals)[number];

/** Makes every post look new to Core. */
const withoutIdempotency: ApiSeams = {
  spool: (spool) => ({
    ...spool,
    append: (kind, nodeId, block) =>
      spool.append(kind, nodeId, { ...block, identity: { way: 'flush', id: randomUUID() } }),
  }),
};

/** Forgets the number of a post. Core then knows it by its id, for as long as ids are kept. */
const withoutNumbers: ApiSeams = {
  spool: (spool) => ({
    ...spool,
    append: (kind, nodeId, block) => {
      const { identity } = block;
      if (identity.way !== 'number') return spool.append(kind, nodeId, block);
      return spool.append(kind, nodeId, { ...block, identity: { way: 'body', id: identity.id } });
    },
  }),
};

export function apiSeams(removal: Removal): ApiSeams {
  if (removal === 'idempotency') return withoutIdempotency;
  return removal === 'numbers' ? withoutNumbers : {};
}

export function workerSeams(removal: Removal): WorkerSeams {
  const { rewrite } = rewrites[removal] ?? {};
  if (rewrite === undefined) return {};
  return {
    load: (deps) => ({
      ...deps,
      pool: rewriting(deps.pool, () => rewrite(deps)),
      // The rewrite asks at this failpoint instead, at the moment that the transaction would protect.
      ...(removal === 'settle-transaction'
        ? { failpoint: exceptBeforeCommit(deps.failpoint) }
        : {}),
    }),
  };
}

type Result = pg.QueryResult<Record<string, unknown>>;
type Query = (text: string, values?: readonly unknown[]) => Promise<Result>;
/** Changes the queries of one connection while it is out of the pool. */
type Rewrite = (text: string, send: () => Promise<Result>, query: Query) => Promise<Result>;

const noRows = { rows: [], rowCount: 0 } as unknown as Result;

const rewrites: Partial<Record<Removal, { rewrite: (deps: LoadDeps) => Rewrite }>> = {
  /** Every worker gets the stream's lock. */
  lock: {
    rewrite: () => async (text, send) => {
      if (text.includes('pg_try_advisory_lock(')) {
        return { ...noRows, rows: [{ locked: true }] };
      }
      return text.includes('pg_advisory_unlock(') ? noRows : send();
    },
  },
  /** Every attempt takes itself for the first one, so no attempt counts rows before an insert. */
  readback: {
    rewrite: () => async (_text, send) => {
      const result = await send();
      for (const row of result.rows ?? []) if ('attempts' in row) row['attempts'] = 0;
      return result;
    },
  },
  /** Commits the statements of a settle one by one. */
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

/** The pool, with a rewrite in front of every query of a connection that is taken from it. */
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

/** `target` with one method replaced. All others stay bound to it. */
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

/** For each protection the faults that it is for, more often than in the whole mix. */
export const removalMix: Record<Removal, FaultMix> = {
  idempotency: {
    ...wholeMix,
    pairs: at(['api', 'accept:after-append'], ['redis', 'accept:after-append']),
  },
  numbers: noMix,
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
