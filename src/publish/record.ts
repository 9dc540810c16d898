import type pg from 'pg';
import { nodesChannel } from '../nodes/channels.ts';
import type { PublishState, ReadNode } from './read-rows.ts';

/** A revision to commit. */
export interface NewRevision {
  nodeId: number;
  revision: number;
  hash: string;
  bytes: number;
  settings: { json: string; hash: string };
  /** From the same snapshot as the rows. */
  state: PublishState;
  previousRevision: number;
}

/** The causes of a node that have come since the render. */
const causesLeftSql = `CASE WHEN n.change_seq = g.seq THEN '{}'
  WHEN cardinality(n.change_causes) > g.seen THEN n.change_causes[g.seen + 1:]
  ELSE n.change_causes END`;

/**
 * Commits new revisions with their history, and tells every process. It leaves out nodes that were
 * deleted, or got another revision, since they were read.
 * @returns the ids of the nodes that got their new revision.
 */
export async function commitRevisions(
  client: pg.PoolClient,
  revisions: readonly NewRevision[],
): Promise<number[]> {
  const sorted = [...revisions].sort((left, right) => left.nodeId - right.nodeId);
  const { rows } = await client.query<{ id: number }>(commitSql, [
    JSON.stringify(
      sorted.map((one) => ({
        id: one.nodeId,
        revision: one.revision,
        previous: one.previousRevision,
        previous_hash: one.state.contentHash,
        hash: one.hash,
        bytes: one.bytes,
        settings_hash: one.settings.hash,
        seq: one.state.changeSeq,
        seen: one.state.causes.length,
        causes: one.state.causes.length === 0 ? [unmarkedCause(one)] : one.state.causes,
      })),
    ),
    sorted.map((one) => one.settings.json),
  ]);
  return rows.map((row) => row.id);
}

/**
 * Why a node without a mark gets a revision: it has none yet, or a new version of Core renders its
 * rows to other bytes.
 */
function unmarkedCause(one: NewRevision): string {
  return one.state.contentHash === null
    ? 'first use'
    : 'rendered differently by this version of Core';
}

const commitSql = `
WITH given AS MATERIALIZED (
  SELECT g.*, s.settings
  FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS e (value, at)
  CROSS JOIN LATERAL jsonb_to_record(e.value) AS g (id integer, revision integer,
    previous integer, previous_hash text, hash text, bytes integer, settings_hash text,
    seq bigint, seen integer, causes text[])
  JOIN unnest($2::text[]) WITH ORDINALITY AS s (settings, at) ON s.at = e.at
), locked AS MATERIALIZED (
  SELECT n.id FROM nodes n JOIN given g ON g.id = n.id
  WHERE n.revision = g.previous
    AND n.content_hash IS NOT DISTINCT FROM decode(g.previous_hash, 'hex')
  ORDER BY n.id FOR NO KEY UPDATE OF n
), updated AS (
  UPDATE nodes n SET revision = g.revision, content_hash = decode(g.hash, 'hex'),
    content_bytes = g.bytes,
    skipped_revisions = CASE WHEN g.revision > g.previous + 1
      THEN int4range(g.previous + 1, g.revision) ELSE n.skipped_revisions END, published_seq = g.seq, published_at = clock_timestamp(),
    changed_at = CASE WHEN n.change_seq = g.seq THEN NULL ELSE clock_timestamp() END,
    change_causes = ${causesLeftSql},
    publish_error = NULL, publish_failed_seq = NULL, publish_failed_at = NULL
  FROM given g JOIN locked USING (id) WHERE n.id = g.id
  RETURNING n.id
), kept AS (
  INSERT INTO node_settings (node_id, settings_hash, settings)
  SELECT g.id, decode(g.settings_hash, 'hex'), g.settings::jsonb
  FROM given g JOIN updated USING (id)
  ON CONFLICT DO NOTHING
), recorded AS (
  INSERT INTO node_revisions
    (node_id, revision, content_hash, content_bytes, settings_hash, causes, created_at)
  SELECT g.id, g.revision, decode(g.hash, 'hex'), g.bytes, decode(g.settings_hash, 'hex'),
    g.causes, clock_timestamp()
  FROM given g JOIN updated USING (id)
)
SELECT id, pg_notify('${nodesChannel}', id::text) FROM updated`;

/** Removes the marks of nodes whose bytes have not changed. Returns their ids. */
export async function recordUnchanged(
  client: pg.PoolClient,
  nodes: readonly ReadNode[],
): Promise<number[]> {
  const { rows } = await client.query<{ id: number }>(
    `WITH given AS MATERIALIZED (
       SELECT * FROM unnest($1::integer[], $2::bigint[], $3::integer[]) AS g (id, seq, seen)
     ), locked AS MATERIALIZED (
       SELECT n.id FROM nodes n JOIN given g ON g.id = n.id ORDER BY n.id FOR NO KEY UPDATE OF n
     )
     UPDATE nodes n SET published_seq = greatest(n.published_seq, g.seq),
       changed_at = CASE WHEN n.change_seq = g.seq THEN NULL ELSE clock_timestamp() END,
       change_causes = ${causesLeftSql},
       publish_error = NULL, publish_failed_seq = NULL, publish_failed_at = NULL
     FROM given g JOIN locked USING (id) WHERE n.id = g.id RETURNING n.id`,
    [
      nodes.map(({ rows: { node } }) => node.id),
      nodes.map(({ state }) => state.changeSeq),
      nodes.map(({ state }) => state.causes.length),
    ],
  );
  return rows.map((row) => row.id);
}

/** Notes why marked nodes could not be rendered, for operators, and when, for the next try. */
export async function recordFailures(
  client: pg.PoolClient,
  failures: readonly { nodeId: number; changeSeq: number; error: unknown }[],
): Promise<void> {
  await client.query(
    `WITH given AS MATERIALIZED (
       SELECT * FROM unnest($1::integer[], $2::bigint[], $3::text[]) AS g (id, seq, reason)
     ), locked AS MATERIALIZED (
       SELECT n.id FROM nodes n JOIN given g ON g.id = n.id ORDER BY n.id FOR NO KEY UPDATE OF n
     )
     UPDATE nodes n SET publish_error = g.reason, publish_failed_seq = g.seq,
       publish_failed_at = clock_timestamp()
     FROM given g JOIN locked USING (id) WHERE n.id = g.id`,
    [
      failures.map((one) => one.nodeId),
      failures.map((one) => one.changeSeq),
      failures.map((one) => reasonOf(one.error)),
    ],
  );
}

/** The error's message with that of its cause, which says what is wrong. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}
