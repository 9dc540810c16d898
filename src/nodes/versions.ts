import { parseVersion } from '../render/xray-versions.ts';
import type { Queryable } from '../stores/postgres.ts';

/** Versions that metrics name. Nodes write what they like, so the rest counts as `other`. */
const versionsMax = 20;

/**
 * How many nodes report which Xray, by its first two numbers (the year and the month of the release). A node
 * that reports none, or no number, counts as `unknown`.
 */
export async function countVersions(db: Queryable): Promise<{ version: string; count: number }[]> {
  const { rows } = await db.query<{ version: string | null; count: number }>(
    `SELECT substring(h.xray_version from '\\d{1,4}\\.\\d{1,4}') AS version, count(*)::integer AS count
     FROM nodes n LEFT JOIN heartbeats h ON h.node_id = n.id
     WHERE n.revoked_at IS NULL GROUP BY 1 ORDER BY 2 DESC, 1`,
  );
  const counts = new Map<string, number>();
  for (const { version, count } of rows) {
    const parsed = parseVersion(version);
    const name = parsed === undefined ? 'unknown' : `${parsed[0]}.${parsed[1]}`;
    const label = counts.has(name) || counts.size < versionsMax ? name : 'other';
    counts.set(label, (counts.get(label) ?? 0) + count);
  }
  return [...counts].map(([version, count]) => ({ version, count }));
}
