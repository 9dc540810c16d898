import type pg from 'pg';

/**
 * Sees a node's settings as they are going to be, in the transaction that changes them. If it throws, nothing is
 * changed.
 */
export type BeforeCommit = (client: pg.PoolClient, nodeId: number) => Promise<void>;
