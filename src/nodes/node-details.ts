import type pg from 'pg';
import { inTransaction } from '../stores/postgres.ts';
import { writeXrayVersions } from './steady-versions.ts';

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
/** Another process may have written another version since, so a writer looks again after a while. */
const writtenMs = 60_000;

interface VersionWriter {
  /**
   * Writes the versions that differ from what this process wrote of the same node within the last minute. The
   * rows of the nodes in `heartbeats` exist already.
   */
  write(pool: pg.Pool, reported: readonly Reported[]): Promise<void>;
}

export function createVersionWriter(nowMs: () => number): VersionWriter {
  const written = new Map<number, { json: string; atMs: number }>();
  return {
    async write(pool, reported) {
      const atMs = nowMs();
      const isWritten = (row: { id: number }): boolean => {
        const last = written.get(row.id);
        return (
          last !== undefined && atMs - last.atMs < writtenMs && last.json === JSON.stringify(row)
        );
      };
      const rows = reported
        .map(({ nodeId, versions }) => ({ id: nodeId, ...pickVersions(versions) }))
        .filter((row) => !isWritten(row));
      if (rows.length === 0) return;
      await inTransaction(pool, (client) => writeVersions(client, rows));
      if (written.size + rows.length > writtenMax) written.clear();
      for (const row of rows) written.set(row.id, { json: JSON.stringify(row), atMs });
    },
  };
}

function pickVersions({ agent, xray, telemt }: Versions = {}): Versions {
  return { agent, xray, telemt };
}

/** Writes versions. Only that of Xray is part of what configurations are rendered from. */
async function writeVersions(
  client: pg.PoolClient,
  rows: readonly ({ id: number } & Versions)[],
): Promise<void> {
  await writeXrayVersions(client, rows);
  await client.query(
    `WITH locked AS MATERIALIZED (
       SELECT seen.* FROM jsonb_to_recordset($1::jsonb) AS seen (id integer, agent text, telemt text)
         JOIN heartbeats h ON h.node_id = seen.id
       WHERE (h.agent_version, h.telemt_version) IS DISTINCT FROM (seen.agent, seen.telemt)
       ORDER BY h.node_id FOR NO KEY UPDATE OF h
     )
     UPDATE heartbeats h SET agent_version = locked.agent, telemt_version = locked.telemt
     FROM locked WHERE h.node_id = locked.id`,
    [JSON.stringify(rows)],
  );
}
