import type pg from 'pg';
import { bumpNodes } from '../nodes/bump.ts';

/** Bumps every node that one of these subscriptions has a link on. */
export async function bumpLinkedNodes(
  client: pg.PoolClient,
  subscriptionIds: readonly number[],
  cause: string,
): Promise<void> {
  if (subscriptionIds.length === 0) return;
  const { rows } = await client.query<{ node_id: number }>(
    `SELECT DISTINCT p.node_id FROM subscription_links l
     JOIN node_protocols p ON p.id = l.node_protocol_id
     WHERE l.subscription_id = ANY ($1::bigint[])`,
    [subscriptionIds],
  );
  await bumpNodes(
    client,
    rows.map((row) => row.node_id),
    cause,
  );
}
