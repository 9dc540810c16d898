import assert from 'node:assert/strict';
import type pg from 'pg';
import type { OutboundOptions } from '../protocols/outbound/outbound.ts';
import type { XraySettings } from '../protocols/routing/xray-settings.ts';
import {
  givenCredentialSql,
  hasCredentialTextSql,
  type LinkRecords,
  linkRecordSql,
} from '../render/link-records.ts';
import type {
  NodeRows,
  NodeSettings,
  OutboundRow,
  ProtocolRow,
  RuleRow,
} from '../render/node-rows.ts';
import { hostSql } from '../render/public-address.ts';
import { inClientTransaction } from '../stores/postgres.ts';
import { leaveOutRemoved } from './rolled-back.ts';

/** How far a node is published, from the same snapshot as its rows. */
export interface PublishState {
  changeSeq: number;
  publishedSeq: number;
  causes: string[];
  /** SHA-256 of the current revision's content in hex; null if none was ever rendered. */
  contentHash: string | null;
  /** Whether `dueSql` holds. */
  due: boolean;
  /** The revision that the node runs, by its newest heartbeat; null if it says nothing. */
  reportedRevision: number | null;
}

export interface ReadNode {
  rows: NodeRows;
  state: PublishState;
}

/**
 * Whether a worker may publish a node now: a change waits, and the last revision is at least a second
 * old. If the node could not be rendered, its next attempt is after a new change, or 30 s later.
 */
export const dueSql = `n.change_seq > n.published_seq AND n.revoked_at IS NULL
  AND (n.published_at IS NULL OR n.published_at <= clock_timestamp() - interval '1 second')
  AND (n.publish_failed_at IS NULL OR n.publish_failed_seq <> n.change_seq
    OR n.publish_failed_at <= clock_timestamp() - interval '30 seconds')`;

/** Reads one node's rows as `readNodes` does. Undefined if there is no such node. */
export async function readNodeRows(
  client: pg.PoolClient,
  nodeId: number,
): Promise<NodeRows | undefined> {
  return (await readNodes(client, [nodeId])).get(nodeId)?.rows;
}

/**
 * Reads nodes with their rows in one snapshot, so that the rows and the number of the change agree. It
 * makes six queries for any number of nodes, so the caller limits the batch by the size of its
 * configurations. The client must not be in a transaction.
 */
export function readNodes(
  client: pg.PoolClient,
  nodeIds: readonly number[],
): Promise<Map<number, ReadNode>> {
  return inClientTransaction(client, async () => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    return readNodesInTransaction(client, nodeIds);
  });
}

/** The same in a transaction of the caller, which has one snapshot, or holds the locks of these nodes. */
export async function readNodesInTransaction(
  client: pg.PoolClient,
  nodeIds: readonly number[],
): Promise<Map<number, ReadNode>> {
  const nodes = await client.query<NodeRow>(nodesSql, [nodeIds]);
  const read = new Map(nodes.rows.map((row) => [row.id, withoutLists(row)]));
  const pinned = new Map(
    nodes.rows.filter((row) => row.pinned !== null).map(({ id }) => [id, rowsOf(read, id)]),
  );
  await leaveOutRemoved(client, pinned);
  const unpinned = [...read.keys()].filter((id) => !pinned.has(id));
  if (unpinned.length > 0) await addSettings(client, unpinned, read);
  const links = await client.query<LinksRow>(linksSql, [[...read.keys()]]);
  for (const row of links.rows) addLinks(read.get(row.nodeId)?.rows, row);
  return read;
}

function rowsOf(read: ReadonlyMap<number, ReadNode>, nodeId: number): NodeRows {
  const node = read.get(nodeId);
  assert(node !== undefined, 'every node of the query was read');
  return node.rows;
}

interface NodeRow {
  id: number;
  host: string;
  ip: string;
  revision: number;
  changeSeq: number;
  publishedSeq: number;
  causes: string[];
  contentHash: string | null;
  due: boolean;
  reportedRevision: number | null;
  xrayVersion: string | null;
  /** After a rollback, the settings of the earlier revision. */
  pinned: NodeSettings | null;
  xray: XraySettings | null;
}

type StoredOutbound = OutboundRow & { nodeId: number; options: OutboundOptions | null };

interface LinksRow {
  nodeId: number;
  records: LinkRecords;
  /** Node protocol, subscription, text. Null if every credential is a UUID. */
  texts: [number, number, string][] | null;
}

function addLinks(rows: NodeRows | undefined, { records, texts }: LinksRow): void {
  if (rows === undefined) return;
  rows.links.push(records);
  if (texts === null) return;
  rows.credentialTexts ??= [];
  for (const [nodeProtocolId, subscriptionId, text] of texts) {
    rows.credentialTexts.push({ nodeProtocolId, subscriptionId, text });
  }
}

/** The node without its links, and without its settings unless a rollback has pinned them. */
function withoutLists(row: NodeRow): ReadNode {
  const { id, host, ip, revision, pinned, xray, xrayVersion, ...state } = row;
  const settings = pinned ?? {
    protocols: [],
    outbounds: [],
    rules: [],
    ...(xray === null ? {} : { xray }),
  };
  return { rows: { node: { id, host, ip, revision, xrayVersion }, ...settings, links: [] }, state };
}

async function addSettings(
  client: pg.PoolClient,
  nodeIds: readonly number[],
  read: ReadonlyMap<number, ReadNode>,
): Promise<void> {
  const protocols = await client.query<ProtocolRow & { nodeId: number }>(protocolsSql, [nodeIds]);
  for (const { nodeId, ...row } of protocols.rows) read.get(nodeId)?.rows.protocols.push(row);
  const outbounds = await client.query<StoredOutbound>(outboundsSql, [nodeIds]);
  for (const { nodeId, options, ...row } of outbounds.rows) {
    const outbound = options === null ? row : { ...row, options };
    read.get(nodeId)?.rows.outbounds.push(outbound);
  }
  const rules = await client.query<RuleRow & { nodeId: number }>(rulesSql, [nodeIds]);
  for (const { nodeId, ...row } of rules.rows) read.get(nodeId)?.rows.rules.push(row);
}

const nodesSql = `
SELECT n.id, ${hostSql} AS host, n.ip, n.revision, n.change_seq AS "changeSeq",
  n.published_seq AS "publishedSeq", n.change_causes AS causes,
  encode(n.content_hash, 'hex') AS "contentHash", ${dueSql} AS due, s.settings AS pinned,
  h.reported_revision AS "reportedRevision", h.rendered_xray_version AS "xrayVersion",
  nullif(n.xray_settings, '{}') AS xray
FROM nodes n
LEFT JOIN heartbeats h ON h.node_id = n.id
LEFT JOIN node_settings s ON s.node_id = n.id AND s.settings_hash = n.pinned_settings_hash
WHERE n.id = ANY ($1::integer[])`;

const protocolsSql = `
SELECT node_id AS "nodeId", id, protocol, port, settings FROM node_protocols
WHERE node_id = ANY ($1::integer[]) ORDER BY id`;

const outboundsSql = `
SELECT node_id AS "nodeId", tag, protocol, settings, nullif(options, '{}') AS options,
  position FROM node_outbounds
WHERE node_id = ANY ($1::integer[]) AND configured AND protocol IS NOT NULL
ORDER BY position, tag COLLATE "C"`;

const rulesSql = `
SELECT node_id AS "nodeId", position, rule FROM routing_rules
WHERE node_id = ANY ($1::integer[]) ORDER BY position`;

/**
 * The links come unsorted, because the renderer sorts 100,000 in 20 ms, a tenth of what Postgres takes.
 * They come in up to 64 rows a node, by the id of the subscription, because the driver copies a large row
 * many times. A subscription may meet a protocol in several groups, and the first of them counts.
 */
const linksSql = `
SELECT p.node_id AS "nodeId", string_agg(${linkRecordSql}, ''::bytea) AS records,
  json_agg(json_build_array(p.id, s.id, ${givenCredentialSql})) FILTER (WHERE ${hasCredentialTextSql}) AS texts
FROM (
  SELECT p.id, p.node_id, p.protocol, pg.group_id,
    pg.group_id = min(pg.group_id) OVER (PARTITION BY p.id) AS is_first
  FROM node_protocols p JOIN protocol_groups pg ON pg.node_protocol_id = p.id
  WHERE p.node_id = ANY ($1::integer[])
) p
JOIN subscription_groups sg ON sg.group_id = p.group_id
JOIN subscriptions s ON s.id = sg.subscription_id
LEFT JOIN subscription_links l ON l.subscription_id = s.id AND l.node_protocol_id = p.id
WHERE s.status = 'active' AND (s.expires_at IS NULL OR s.expires_at > now())
  AND (p.is_first OR NOT EXISTS (
    SELECT FROM protocol_groups earlier
    JOIN subscription_groups met ON met.group_id = earlier.group_id
    WHERE earlier.node_protocol_id = p.id AND earlier.group_id < p.group_id
      AND met.subscription_id = s.id))
GROUP BY p.node_id, s.id & 63`;
