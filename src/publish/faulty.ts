import type pg from 'pg';
import type { NodeErrorDto } from '../contract/node.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { type KeptError, recordError } from '../nodes/reports.ts';
import { inTransaction } from '../stores/postgres.ts';
import { keptProtocolsSql } from './rolled-back.ts';

/** Codes of reports that are about the newest configuration, even if their details name no revision. */
const configurationCodes = new Set(['CONFIG_REFUSED', 'CONFIG_UNSUPPORTED', 'PROXY_NOT_STARTED']);

/**
 * Records an error that a node reports. If the node refuses its newest settings and runs older ones, this
 * also rolls the node back to the settings that it applied last: a node that keeps refusing gets no change
 * of its users either, so one wrong part would stop all its services from following.
 *
 * The rollback stays until an operator changes the node's settings or ends the rollback, and `faulty` of
 * the node says why. So each set of settings is rolled back once at most, whatever the node reports.
 * @param options.rollsBack Whether an operator wants Core to roll back by itself.
 */
export async function reportNodeError(
  pool: pg.Pool,
  nodeId: number,
  error: NodeErrorDto,
  options: { rollsBack: boolean },
): Promise<void> {
  await inTransaction(pool, async (client) => {
    const kept = await recordError(client, nodeId, error);
    if (kept === undefined || !options.rollsBack) return;
    const state = await readState(client, nodeId, refusedRevision(error));
    if (state === undefined) return;
    if (isRefusedAgain(state)) {
      await client.query('UPDATE nodes SET faulty_again_at = clock_timestamp() WHERE id = $1', [
        nodeId,
      ]);
    } else if (shouldRollBack(state)) await rollBack(client, nodeId, state, kept);
  });
}

/**
 * The revision that a report is about: the one that its details name, or the newest one if the report has no
 * code (all that older agents report is that an apply failed) or a code for the configuration. Null for
 * any other report, like one about the agent's own disk.
 */
function refusedRevision({ code, details }: NodeErrorDto): number | 'newest' | null {
  const named = details?.['revision'];
  if (typeof named === 'number' && Number.isSafeInteger(named)) return named;
  const isAboutNewest = code === undefined || code === '' || configurationCodes.has(code);
  return isAboutNewest ? 'newest' : null;
}

interface State {
  refused: number;
  applied: number | null;
  /** The revision that the node runs, by its newest heartbeat. */
  reported: number | null;
  pinned: number | null;
  /** The revision that Core has rolled the node back from. */
  faulty: number | null;
  /** Whether a change of the node's settings waits to be published: it may be the correction. */
  settingsWait: boolean;
  /** Whether the newest revision has the settings of the refused one. */
  isCurrent: boolean;
  /** Whether the revision that the node applied last has other settings. */
  differs: boolean;
  /** How many protocols of the revision that the node applied last still exist. */
  protocolsLeft: number;
}

async function readState(
  client: pg.PoolClient,
  nodeId: number,
  refused: number | 'newest' | null,
): Promise<State | undefined> {
  if (refused === null) return undefined;
  // An integer of Postgres: a number past it names no revision.
  if (refused !== 'newest' && (refused < 1 || refused > 2_147_483_647)) return undefined;
  const { rows } = await client.query<State>(
    `SELECT bad.revision AS refused, n.applied_revision AS applied, h.reported_revision AS reported,
       n.pinned_revision AS pinned, n.faulty_revision AS faulty,
       n.settings_seq > n.published_seq AS "settingsWait",
       bad.settings_hash = newest.settings_hash AS "isCurrent",
       bad.settings_hash IS DISTINCT FROM good.settings_hash AS differs,
       (${keptProtocolsSql('s.settings', 'n.id')}) AS "protocolsLeft"
     FROM nodes n
       JOIN node_revisions newest ON newest.node_id = n.id AND newest.revision = n.revision
       JOIN node_revisions bad ON bad.node_id = n.id AND bad.revision = coalesce($2, n.revision)
       LEFT JOIN node_revisions good ON good.node_id = n.id AND good.revision = n.applied_revision
       LEFT JOIN node_settings s ON s.node_id = n.id AND s.settings_hash = good.settings_hash
       LEFT JOIN heartbeats h ON h.node_id = n.id
     WHERE n.id = $1`,
    [nodeId, refused === 'newest' ? null : refused],
  );
  return rows[0];
}

/** Whether the node refuses the settings that Core has rolled it back to, too. */
function isRefusedAgain({ faulty, refused, isCurrent }: State): boolean {
  return faulty !== null && refused > faulty && isCurrent;
}

/**
 * Only settings that the node has never applied are rolled back, and only to those that it has. If they
 * are the same, the node refuses its users, and other settings would not help. An operator's own rollback
 * stays.
 */
function shouldRollBack(state: State): boolean {
  const { refused, applied, reported, pinned, settingsWait, isCurrent, differs } = state;
  if (pinned !== null || settingsWait || applied === null) return false;
  const runsIt = reported !== null && reported >= refused;
  return isCurrent && differs && !runsIt && state.protocolsLeft > 0;
}

async function rollBack(
  client: pg.PoolClient,
  nodeId: number,
  { refused, applied }: State,
  error: KeptError,
): Promise<void> {
  await client.query(
    `UPDATE nodes SET pinned_revision = applied_revision, pinned_settings_hash = (
         SELECT settings_hash FROM node_revisions r
         WHERE r.node_id = nodes.id AND r.revision = nodes.applied_revision),
       faulty_at = clock_timestamp(), faulty_revision = $2, faulty_message = $3, faulty_code = $4,
       faulty_again_at = NULL
     WHERE id = $1`,
    [nodeId, refused, error.message, error.code],
  );
  await bumpNodes(client, [nodeId], `node refused ${refused}: rollback to ${applied} by Core`);
}

/** How many nodes Core has rolled back by itself, and since when the first one is. */
export async function countFaulty(
  db: Pick<pg.Pool, 'query'>,
): Promise<{ nodes: number; since: Date | null }> {
  const { rows } = await db.query<{ nodes: number; since: Date | null }>(
    `SELECT count(*)::integer AS nodes, min(faulty_at) AS since FROM nodes
     WHERE faulty_at IS NOT NULL AND revoked_at IS NULL`,
  );
  return rows[0] ?? { nodes: 0, since: null };
}
