import type pg from 'pg';
import { bumpSettings } from '../nodes/bump.ts';
import { lockLiveNode, requireNode } from '../nodes/lock-node.ts';
import { validateXraySettings, type XraySettings } from '../protocols/routing/xray-settings.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import type { BeforeCommit } from './before-commit.ts';
import { requireReferences } from './references.ts';

/**
 * Replaces what a node's Xray has beside its inbounds, outbounds and rules, and marks the node as changed.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for settings that Xray would refuse, an outbound that the node
 * does not have, a balancer that a rule still names, or a revoked node.
 */
export async function setXraySettings(
  pool: pg.Pool,
  nodeId: number,
  given: Record<string, unknown>,
  beforeCommit?: BeforeCommit,
): Promise<void> {
  const settings = validateXraySettings(given);
  await inTransaction(pool, async (client) => {
    await lockLiveNode(client, nodeId);
    await replaceXraySettings(client, nodeId, settings);
    await requireReferences(client, nodeId);
    await bumpSettings(client, nodeId, 'settings of Xray changed');
    await beforeCommit?.(client, nodeId);
  });
}

/** The caller's transaction must have locked the node and checked the settings, and checks references. */
export async function replaceXraySettings(
  client: pg.PoolClient,
  nodeId: number,
  settings: XraySettings,
): Promise<void> {
  await client.query('UPDATE nodes SET xray_settings = $2 WHERE id = $1', [
    nodeId,
    JSON.stringify(settings),
  ]);
}

/** @throws CoreError NOT_FOUND. */
export async function readXraySettings(db: Queryable, nodeId: number): Promise<XraySettings> {
  await requireNode(db, nodeId);
  const { rows } = await db.query<{ settings: XraySettings }>(
    'SELECT xray_settings AS settings FROM nodes WHERE id = $1',
    [nodeId],
  );
  return rows[0]?.settings ?? {};
}
