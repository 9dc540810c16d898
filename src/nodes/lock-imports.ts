import type pg from 'pg';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';

/**
 * Take it before any other lock, and before removing groups or protocols or changing the name of a protocol.
 * An import takes it before its first row. Its rows hold on to groups and protocols for minutes, and at its end
 * it waits for the lock of the links. Whoever removes those would hold that lock, wait for the rows, and so wait
 * in a circle. Imports share the lock, and whoever removes something waits for them here, where he holds up
 * nobody.
 */
export async function lockImports(
  client: pg.PoolClient,
  doing: 'importing' | 'removing',
): Promise<void> {
  const mode = doing === 'importing' ? 'shared' : 'exclusive';
  await lockUntilCommit(client, advisoryLocks.imports, mode);
}
