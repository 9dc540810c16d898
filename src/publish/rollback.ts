import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { lockLiveNode } from '../nodes/require.ts';
import { inTransaction } from '../stores/postgres.ts';

/**
 * Puts a node back to the settings (protocols, outbounds, rules) of an earlier revision: the one it
 * applied last, or the one named. The links stay those of today, so nobody comes back whose access
 * has ended meanwhile. A worker then publishes it as a new revision, so that the node sees that it
 * must sync. It lasts until the next change of the node's settings; what is stored of them stays as
 * it is, and is what that change adds to.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT where there is nothing to go back to.
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
  if (row === undefined) throw new CoreError('NOT_FOUND', `There is no node ${nodeId}`);
  const revision = wantedRevision ?? row.applied;
  if (revision === null) {
    throw refused(
      `Node ${nodeId} has not applied any revision yet, so there is none to go back to`,
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
    throw refused(`Revision ${revision} of node ${nodeId} is not kept any more, or never was`);
  }
  if (!row.waits && row.currentSettings?.equals(target.settingsHash) === true) {
    throw refused(
      `The settings of node ${nodeId} are those of revision ${revision}: only its clients have changed since`,
    );
  }
  return target;
}

function refused(message: string): CoreError {
  return new CoreError('INVALID_ARGUMENT', message);
}
