import type pg from 'pg';
import { inClientTransaction } from '../stores/postgres.ts';

/** Does work in a transaction, which is rolled back after a dry run. */
export async function inDryTransaction<T>(
  pool: pg.Pool,
  dryRun: boolean,
  work: (client: pg.PoolClient) => Promise<T>,
): Promise<T> {
  const client = await pool.connect();
  let failed = true;
  try {
    const result = await inClientTransaction(
      client,
      () => work(client),
      () => !dryRun,
    );
    failed = false;
    return result;
  } finally {
    client.release(failed);
  }
}
