import type pg from 'pg';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';

/**
 * Take it before adding or pruning tags that nobody configured. A node may have only a limited number of
 * them, and two streams may settle rows of one node while the number of shards changes. One lock serves
 * all nodes: a group may bring the first tags of thousands of nodes, and a lock for each would be too many.
 */
export async function lockOutboundTags(client: pg.PoolClient): Promise<void> {
  await lockUntilCommit(client, advisoryLocks.outboundTags);
}
