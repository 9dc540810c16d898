import type pg from 'pg';
import { olderVersion } from '../render/xray-versions.ts';
import { inTransaction } from '../stores/postgres.ts';
import { bumpNodes } from './bump.ts';

// The version of Xray is part of what a node's configuration is rendered from. Two agents with one key, or an
// agent that lies, report one version after the other, and each could make a revision. So Core follows a few
// changes, and then stays with the oldest version until the reported one is the same for an hour.

/** An upgrade, the way back, and another try. */
export const versionChangesMax = 3;
const steadyInterval = "interval '1 hour'";
const cause = 'version of Xray';

interface Reported {
  id: number;
  xray?: string | undefined;
}

interface Kept {
  id: number;
  rendered: string | null;
  changes: number;
}

/**
 * Writes versions of Xray that differ from those reported before, and marks the nodes that are rendered for
 * another version now. It locks rows of `nodes` before rows of `heartbeats`, as the deletion of a node does.
 */
export async function writeXrayVersions(
  client: pg.PoolClient,
  reported: readonly Reported[],
): Promise<void> {
  const seen = new Map(reported.map(({ id, xray }) => [id, xray ?? null]));
  const given = [[...seen.keys()], [...seen.values()]];
  const found = await client.query<{ id: number }>(
    `SELECT n.id FROM nodes n JOIN heartbeats h ON h.node_id = n.id
       JOIN unnest($1::integer[], $2::text[]) AS seen (id, xray) ON seen.id = n.id
     WHERE h.xray_version IS DISTINCT FROM seen.xray ORDER BY n.id FOR NO KEY UPDATE OF n`,
    given,
  );
  if (found.rows.length === 0) return;
  // Read again under the lock: another process may have written the same heartbeat.
  const kept = await client.query<Kept>(
    `SELECT h.node_id AS id, h.rendered_xray_version AS rendered,
       CASE WHEN h.xray_changed_at > now() - ${steadyInterval} THEN h.xray_changes ELSE 0 END AS changes
     FROM heartbeats h JOIN unnest($1::integer[], $2::text[]) AS seen (id, xray) ON seen.id = h.node_id
     WHERE h.xray_version IS DISTINCT FROM seen.xray AND h.node_id = ANY ($3::integer[])`,
    [...given, found.rows.map(({ id }) => id)],
  );
  const changed = kept.rows.map(({ id, rendered, changes }) => {
    const xray = seen.get(id) ?? null;
    const follows = changes < versionChangesMax;
    const next = follows ? xray : olderVersion(rendered, xray);
    return { id, xray, rendered: next, changes: changes + 1, isMarked: next !== rendered };
  });
  const marked = changed.filter(({ isMarked }) => isMarked).map(({ id }) => id);
  await bumpNodes(client, marked, cause);
  await client.query(
    `UPDATE heartbeats h SET xray_version = seen.xray, rendered_xray_version = seen.rendered,
       xray_changes = seen.changes, xray_changed_at = now()
     FROM jsonb_to_recordset($1::jsonb) AS seen (id integer, xray text, rendered text, changes integer)
     WHERE h.node_id = seen.id`,
    [JSON.stringify(changed)],
  );
}

/** Renders nodes for the version that they report, if they have reported no other one for an hour. */
export async function followSteadyVersions(pool: pg.Pool): Promise<void> {
  await inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ id: number }>(
      `SELECT n.id FROM nodes n JOIN heartbeats h ON h.node_id = n.id
       WHERE h.rendered_xray_version IS DISTINCT FROM h.xray_version
         AND h.xray_changed_at <= now() - ${steadyInterval} ORDER BY n.id FOR NO KEY UPDATE OF n`,
    );
    if (rows.length === 0) return;
    const ids = rows.map(({ id }) => id);
    await bumpNodes(client, ids, cause);
    await client.query(
      `UPDATE heartbeats SET rendered_xray_version = xray_version
       WHERE node_id = ANY ($1::integer[])`,
      [ids],
    );
  });
}
