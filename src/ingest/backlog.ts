import type { Redis } from 'ioredis';
import type { Queryable } from '../stores/postgres.ts';
import { streamKeys } from './streams.ts';

/** What one stream still has to deliver. */
export interface StreamBacklog {
  stream: string;
  kind: string;
  /** Bytes and entries that Redis holds. */
  bytes: number;
  entries: number;
  unsettledSegments: number;
  unsettledRows: number;
  /** Age of the oldest segment that is not settled, in seconds; 0 where there is none. */
  lagSeconds: number;
  /** Rows ever settled that named a subscription or node that does not exist. */
  unknownRows: number;
}

/** The backlog of every stream, from the stores alone: any process gives the same answer. */
export async function readBacklog(
  db: Queryable,
  redis: Redis,
  prefix: string,
): Promise<StreamBacklog[]> {
  const { rows } = await db.query<Omit<StreamBacklog, 'bytes' | 'entries'>>(
    `SELECT t.stream, t.kind, t.unknown_rows AS "unknownRows",
       count(s.id)::integer AS "unsettledSegments",
       coalesce(sum(s.rows), 0)::bigint AS "unsettledRows",
       coalesce(extract(epoch FROM now() - min(s.sealed_at)), 0)::double precision AS "lagSeconds"
     FROM streams t LEFT JOIN segments s ON s.stream = t.stream AND s.state = 'sealed'
     WHERE starts_with(t.stream, $1)
     GROUP BY t.stream ORDER BY t.stream`,
    [`${prefix}:`],
  );
  return Promise.all(
    rows.map(async (row) => {
      const keys = streamKeys(row.stream);
      const [appended, trimmed, entries] = await Promise.all([
        redis.get(keys.appended),
        redis.get(keys.trimmed),
        redis.xlen(keys.stream),
      ]);
      const bytes = Math.max(0, Number(appended ?? 0) - Number(trimmed ?? 0));
      return { ...row, bytes, entries };
    }),
  );
}
