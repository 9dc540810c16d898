import type pg from 'pg';

/**
 * Records for each of these subscriptions that it joined or left a group, with the names of its groups before and
 * after. Call it in the transaction of the change, while the group exists. Whether the rows of the members have
 * changed already makes no difference.
 */
export async function recordGroupEvents(
  client: pg.PoolClient,
  subscriptionIds: readonly number[],
  { groupId, action }: { groupId: number; action: 'add' | 'remove' },
): Promise<void> {
  if (subscriptionIds.length === 0) return;
  const [from, to] = action === 'add' ? ['others', 'all_of'] : ['all_of', 'others'];
  await client.query(
    `INSERT INTO subscription_events (subscription_id, kind, data)
     SELECT given, 'groups_changed', json_build_object('from', ${from}, 'to', ${to})
     FROM unnest($1::bigint[]) AS given CROSS JOIN LATERAL (
       SELECT coalesce(json_agg(g.name ORDER BY g.name) FILTER (WHERE g.id <> $2), '[]') AS others,
         json_agg(g.name ORDER BY g.name) AS all_of
       FROM groups g WHERE g.id = $2
         OR g.id IN (SELECT sg.group_id FROM subscription_groups sg WHERE sg.subscription_id = given)
     ) names ORDER BY given`,
    [subscriptionIds, groupId],
  );
}
