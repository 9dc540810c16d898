import assert from 'node:assert/strict';
import pg from 'pg';

/** What a query module needs: a pool, or the client of a running transaction. */
export type Queryable = pg.Pool | pg.PoolClient;

const int8Oid = 20;

/**
 * Ids and byte counts are JSON numbers on the wire. A counter past 2^53 loses its last digits here;
 * exact sums are ClickHouse's to give.
 */
const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    oid === int8Oid && format !== 'binary'
      ? Number
      : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser,
};

/**
 * A pool whose bigint columns come back as numbers. An idle connection that dies is dropped by the
 * pool; the next query opens a new one, so the error event needs no action beyond not crashing.
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
  // A connection that dies while a caller holds it emits an error too; the caller's query rejects.
  pool.on('connect', (client) => client.on('error', () => undefined));
  return pool;
}

/**
 * Runs `work` in one transaction: committed when it resolves, rolled back when it throws.
 */
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
    // After a failure the connection may be in an unknown state (a rollback that timed out), so it
    // is closed rather than handed to the next caller.
    client.release(failed);
  }
}

/**
 * A transaction on a client that stays with the caller, for work under a session lock. A result for
 * which `isKept` says no is rolled back and returned all the same.
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
    // Where even the rollback fails the connection is gone, and the transaction with it. What the
    // caller needs to know is the first failure.
    await client.query('ROLLBACK').catch(() => undefined);
    throw thrown;
  }
}
