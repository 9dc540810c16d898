import assert from 'node:assert/strict';
import pg from 'pg';

/** A pool, or the client of a transaction. */
export type Queryable = pg.Pool | pg.PoolClient;

const int8Oid = 20;

/**
 * Reads bigint as a number, since ids and byte counts are JSON numbers on the wire. A counter over 2^53 loses
 * its last digits here; ClickHouse has the exact sums.
 */
const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    oid === int8Oid && format !== 'binary'
      ? Number
      : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser,
};

/**
 * A pool that returns bigint columns as numbers. If an idle connection dies, the pool drops it and the next
 * query opens a new one. The listener of the error event has nothing to do, but without one the event would
 * end the process.
 */
export function createPool(
  url: string,
  options: { max?: number; connectTimeoutMs?: number; onIdleError?: (error: Error) => void } = {},
): pg.Pool {
  const max = options.max ?? 8;
  assert(max > 0, 'a pool holds at least one connection');
  const pool = new pg.Pool({
    connectionString: url,
    max,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 5_000,
    idleTimeoutMillis: 30_000,
    query_timeout: 60_000,
    keepAlive: true,
    application_name: 'core',
    types,
  });
  pool.on('error', (error) => options.onIdleError?.(error));
  // A connection that dies while a caller holds it also emits an error. The caller's query rejects.
  pool.on('connect', (client) => client.on('error', () => undefined));
  return pool;
}

/** Runs `work` in one transaction, which is committed if it resolves and rolled back if it throws. */
export async function inTransaction<T>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<T>,
): Promise<T> {
  const client = await pool.connect();
  let failed = true;
  try {
    const result = await inClientTransaction(client, () => work(client));
    failed = false;
    return result;
  } finally {
    // After a failure the connection may be in an unknown state, such as after a rollback that timed out. So
    // the pool closes it and does not give it to the next caller.
    client.release(failed);
  }
}

/**
 * A transaction on a client that stays with the caller, for work under a session lock. If `isKept` says no,
 * the transaction is rolled back, and the result is returned all the same.
 */
export async function inClientTransaction<T>(
  client: pg.PoolClient,
  work: () => Promise<T>,
  isKept: (result: T) => boolean = () => true,
): Promise<T> {
  await client.query('BEGIN');
  try {
    const result = await work();
    await client.query(isKept(result) ? 'COMMIT' : 'ROLLBACK');
    return result;
  } catch (thrown) {
    // If even the rollback fails, the connection is gone and the transaction with it. The caller needs to
    // know the first failure.
    await client.query('ROLLBACK').catch(() => undefined);
    throw thrown;
  }
}
