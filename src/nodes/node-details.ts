import type pg from 'pg';
import { inTransaction } from '../stores/postgres.ts';
import { bumpNodes } from './bump.ts';

// What heartbeats say of the programs and the machine of their nodes. The load goes into the UPDATE of all
// heartbeats. Versions hardly ever change, so they are written only when they do.

/** The versions of a node's programs, as the programs print them. */
export interface Versions {
  agent?: string | undefined;
  xray?: string | undefined;
  telemt?: string | undefined;
}

/** The load of a node's machine. */
export interface LoadReport {
  cpuPercent?: number | undefined;
  memoryBytes?: number | undefined;
  uptimeSeconds?: number | undefined;
}

interface Reported {
  nodeId: number;
  versions?: Versions | undefined;
  load?: LoadReport | undefined;
}

/** The load of each node as three arrays in Postgres' own text: percent, bytes, seconds. */
export function loadValues(reported: readonly Reported[]): string[] {
  const fields = ['cpuPercent', 'memoryBytes', 'uptimeSeconds'] as const;
  return fields.map((field) => `{${reported.map(({ load }) => load?.[field] ?? 'NULL').join()}}`);
}

/** Ten times the largest fleet that Core is made for. Past it, a writer forgets what it has written. */
const writtenMax = 100_000;

interface VersionWriter {
  /**
   * Writes the versions that differ from what this process wrote last of the same node. The rows of the
   * nodes in `heartbeats` exist already.
   */
  write(pool: pg.Pool, reported: readonly Reported[]): Promise<void>;
}

export function createVersionWriter(): VersionWriter {
  const written = new Map<number, string>();
  return {
    async write(pool, reported) {
      const rows = reported
        .map(({ nodeId, versions }) => ({ id: nodeId, ...pickVersions(versions) }))
        .filter((row) => written.get(row.id) !== JSON.stringify(row));
      if (rows.length === 0) return;
      await inTransaction(pool, (client) => writeVersions(client, rows));
      if (written.size + rows.length > writtenMax) written.clear();
      for (const row of rows) written.set(row.id, JSON.stringify(row));
    },
  };
}

function pickVersions({ agent, xray, telemt }: Versions = {}): Versions {
  return { agent, xray, telemt };
}

/**
 * Writes versions, and marks the nodes whose Xray has another version now: the version is part of what
 * their configuration is rendered from. It locks rows of `nodes` before rows of `heartbeats`, as the
 * deletion of a node does.
 */
async function writeVersions(client: pg.PoolClient, rows: readonly object[]): Promise<void> {
  const given = [JSON.stringify(rows)];
  const otherXray = await client.query<{ id: number }>(
    `SELECT seen.id FROM ${seenSql} JOIN heartbeats h ON h.node_id = seen.id
     WHERE h.xray_version IS DISTINCT FROM seen.xray`,
    given,
  );
  const ids = otherXray.rows.map(({ id }) => id);
  await bumpNodes(client, ids, 'version of Xray');
  await client.query(
    `WITH locked AS MATERIALIZED (
       SELECT seen.* FROM ${seenSql} JOIN heartbeats h ON h.node_id = seen.id
       WHERE (h.agent_version, h.xray_version, h.telemt_version)
         IS DISTINCT FROM (seen.agent, seen.xray, seen.telemt)
       ORDER BY h.node_id FOR NO KEY UPDATE OF h
     )
     UPDATE heartbeats h SET agent_version = locked.agent, xray_version = locked.xray,
       telemt_version = locked.telemt
     FROM locked WHERE h.node_id = locked.id`,
    given,
  );
}

const seenSql = `jsonb_to_recordset($1::jsonb)
  AS seen (id integer, agent text, xray text, telemt text)`;
