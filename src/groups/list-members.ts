import type { Queryable } from '../stores/postgres.ts';
import { groupId } from './names.ts';

// Who is in a group, a page at a time by id. Each page is a range of the index by group.

interface Page {
  afterId: number;
  rowsMax: number;
}

interface MemberProtocol {
  nodeProtocolId: number;
  nodeId: number;
  nodeName: string;
  /** The name of the protocol on its node. */
  name: string;
  protocol: string;
  port: number;
}

/**
 * The protocols of a group.
 * @throws CoreError NOT_FOUND.
 */
export async function listMemberProtocols(
  db: Queryable,
  group: string,
  page: Page,
): Promise<MemberProtocol[]> {
  const { rows } = await db.query<MemberProtocol>(
    `SELECT p.id AS "nodeProtocolId", p.node_id AS "nodeId", n.name AS "nodeName", p.name, p.protocol, p.port
     FROM protocol_groups pg
     JOIN node_protocols p ON p.id = pg.node_protocol_id
     JOIN nodes n ON n.id = p.node_id
     WHERE pg.group_id = $1 AND pg.node_protocol_id > $2 ORDER BY pg.node_protocol_id LIMIT $3`,
    [await groupId(db, group), page.afterId, page.rowsMax],
  );
  return rows;
}

interface MemberSubscription {
  subscriptionId: number;
  userId: number;
  userName: string;
  status: string;
}

/**
 * The subscriptions of a group.
 * @throws CoreError NOT_FOUND.
 */
export async function listMemberSubscriptions(
  db: Queryable,
  group: string,
  page: Page,
): Promise<MemberSubscription[]> {
  const { rows } = await db.query<MemberSubscription>(
    `SELECT s.id AS "subscriptionId", s.user_id AS "userId", u.name AS "userName", s.status
     FROM subscription_groups sg
     JOIN subscriptions s ON s.id = sg.subscription_id
     JOIN users u ON u.id = s.user_id
     WHERE sg.group_id = $1 AND sg.subscription_id > $2 ORDER BY sg.subscription_id LIMIT $3`,
    [await groupId(db, group), page.afterId, page.rowsMax],
  );
  return rows;
}
