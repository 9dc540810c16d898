import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { lockLiveNode, noSuchNode } from '../nodes/lock-node.ts';
import { inTransaction } from '../stores/postgres.ts';

/**
 * Rolls a node back to the settings (protocols, outbounds, rules) of an earlier revision: the wanted one,
 * or the one that it applied last. The links stay today's, so nobody gets back an access that has ended
 * meanwhile. A worker publishes the result as a new revision, so that the node sees that it must sync.
 *
 * The rollback ends with the next change of the node's settings. It does not touch the stored settings,
 * so that change builds on them and not on those of the earlier revision.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if there is nothing to roll back to.
 */
export async function rollBackNode(
  pool: pg.Pool,
  nodeId: number,
  wantedRevision?: number,
): Promise<{ nodeId: number; rolledBackTo: number }> {
  return inTransaction(pool, async (client) => {
    await lockLiveNode(client, nodeId);
    const target = await findTarget(client, nodeId, wantedRevision);
    await client.query(
      'UPDATE nodes SET pinned_revision = $2, pinned_settings_hash = $3 WHERE id = $1',
      [nodeId, target.revision, target.settingsHash],
    );
    await bumpNodes(client, [nodeId], `rollback to ${target.revision}`);
    return { nodeId, rolledBackTo: target.revision };
  });
}

interface Target {
  revision: number;
  settingsHash: Buffer;
}

async function findTarget(
  client: pg.PoolClient,
  nodeId: number,
  wantedRevision: number | undefined,
): Promise<Target> {
  const { rows } = await client.query<{
    current: number;
    applied: number | null;
    currentSettings: Buffer | null;
    waits: boolean;
  }>(
    `SELECT n.revision AS current, n.applied_revision AS applied,
       n.change_seq > n.published_seq AS waits, r.settings_hash AS "currentSettings"
     FROM nodes n LEFT JOIN node_revisions r ON r.node_id = n.id AND r.revision = n.revision
     WHERE n.id = $1`,
    [nodeId],
  );
  const row = rows[0];
  if (row === undefined) throw noSuchNode(nodeId);
  const revision = wantedRevision ?? row.applied;
  if (revision === null) {
    throw refused(
      `Node ${nodeId} has not applied any revision yet, so there is none to roll back to`,
    );
  }
  if (wantedRevision === undefined && revision >= row.current && !row.waits) {
    throw refused(
      `Node ${nodeId} applied its newest revision, ${revision}; name an earlier one with --to`,
    );
  }
  const found = await client.query<Target>(
    `SELECT revision, settings_hash AS "settingsHash" FROM node_revisions
     WHERE node_id = $1 AND revision = $2`,
    [nodeId, revision],
  );
  const target = found.rows[0];
  if (target === undefined) {
    throw refused(`Core does not keep revision ${revision} of node ${nodeId}, or never issued it`);
  }
  if (!row.waits && row.currentSettings?.equals(target.settingsHash) === true) {
    throw refused(
      `The settings of node ${nodeId} have not changed since revision ${revision}, only its clients have`,
    );
  }
  return target;
}

function refused(message: string): CoreError {
  return new CoreError('INVALID_ARGUMENT', message);
}
