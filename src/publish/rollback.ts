import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes, bumpSettings } from '../nodes/bump.ts';
import { lockLiveNode, noSuchNode } from '../nodes/lock-node.ts';
import { inTransaction } from '../stores/postgres.ts';
import { type LeftOutProtocol, readKeptProtocols } from './rolled-back.ts';

interface RolledBack {
  nodeId: number;
  rolledBackTo: number;
  leftOut: LeftOutProtocol[];
}

/**
 * Rolls a node back to the settings of an earlier revision: the wanted one, or the one that it applied last.
 * The links stay today's, so nobody gets back an access that has ended meanwhile. A worker publishes the
 * result as a new revision, so that the node sees that it must sync.
 *
 * The rollback ends with the next change of the node's settings. It does not touch the stored settings,
 * so that change builds on them and not on those of the earlier revision.
 * @returns also the protocols of the earlier revision that were removed since. They have no links, so the
 * node does not get them back.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if there is nothing to roll back to.
 */
export async function rollBackNode(
  pool: pg.Pool,
  nodeId: number,
  wantedRevision?: number,
): Promise<RolledBack> {
  return inTransaction(pool, async (client) => {
    await lockLiveNode(client, nodeId);
    const target = await findTarget(client, nodeId, wantedRevision);
    const { revision, settingsHash } = target;
    const { kept, leftOut } = await readKeptProtocols(client, nodeId, settingsHash);
    if (kept === 0 && leftOut.length > 0) {
      throw refused(
        `All protocols of revision ${revision} of node ${nodeId} were removed since, and their links with them: there is nothing to roll back to`,
      );
    }
    // The rollback is the operator's now, so it ends the alarm of one that Core made.
    await client.query(
      `UPDATE nodes SET pinned_revision = $2, pinned_settings_hash = $3, faulty_at = NULL,
         faulty_revision = NULL, faulty_message = NULL, faulty_code = NULL, faulty_again_at = NULL
       WHERE id = $1`,
      [nodeId, revision, settingsHash],
    );
    const without = leftOut.map(({ nodeProtocolId }) => nodeProtocolId).join(', ');
    const cause = `rollback to ${revision}`;
    await bumpNodes(
      client,
      [nodeId],
      without === '' ? cause : `${cause} without removed protocol ${without}`,
    );
    return { nodeId, rolledBackTo: revision, leftOut };
  });
}

/**
 * Ends a rollback, by an operator or by Core: the node gets the stored settings again, as its next
 * revision.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if the node is not rolled back.
 */
export async function endRollback(
  pool: pg.Pool,
  nodeId: number,
): Promise<{ nodeId: number; rolledBackTo: null }> {
  return inTransaction(pool, async (client) => {
    await lockLiveNode(client, nodeId);
    const { rowCount } = await client.query(
      'SELECT FROM nodes WHERE id = $1 AND pinned_revision IS NOT NULL',
      [nodeId],
    );
    if (rowCount !== 1) throw refused(`Node ${nodeId} is not rolled back`);
    await bumpSettings(client, nodeId, 'rollback ended');
    return { nodeId, rolledBackTo: null };
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
