import type { Logger } from '../log.ts';
import type { Queryable } from '../stores/postgres.ts';
import { pruneSegments } from './prune.ts';
import { type ReconcileDeps, type Reconciliation, reconcileToPrune } from './reconcile.ts';

interface AuditDeps extends ReconcileDeps {
  log: Logger;
  signal: AbortSignal;
  /** How many days settled segments are kept. 0 or absent: for ever. */
  segmentsKeptDays?: number | undefined;
}

/** An audit is due once the last one is older than this. */
const auditEverySeconds = 86_400;
/** How long the outcome of an audit is kept. */
const keptDays = 400;

/** The outcome of the last audit. */
interface LastAudit {
  ranAt: Date;
  segments: number;
  differences: number;
  ageSeconds: number;
}

/** Undefined before the first audit. */
export async function lastAudit(db: Queryable): Promise<LastAudit | undefined> {
  const { rows } = await db.query<LastAudit>(
    `SELECT ran_at AS "ranAt", segments, differences,
       greatest(0, extract(epoch FROM now() - ran_at))::float8 AS "ageSeconds"
     FROM audits ORDER BY ran_at DESC, id DESC LIMIT 1`,
  );
  return rows[0];
}

/**
 * Runs the audit over everything, adds its outcome to the table `audits` and deletes old outcomes. If it
 * found no difference, it also deletes segments that are older than `segmentsKeptDays`.
 */
export async function runAudit(deps: AuditDeps): Promise<Reconciliation> {
  const { found, prunable } = await reconcileToPrune(deps, {
    signal: deps.signal,
    keptDays: deps.segmentsKeptDays ?? 0,
  });
  const { segments, subscriptions, differences, details } = found;
  await deps.pool.query('INSERT INTO audits (segments, differences, details) VALUES ($1, $2, $3)', [
    segments,
    differences,
    JSON.stringify(details),
  ]);
  await deps.pool.query('DELETE FROM audits WHERE ran_at < now() - make_interval(days => $1)', [
    keptDays,
  ]);
  if (differences === 0) deps.log.info({ segments, subscriptions }, 'audit found no difference');
  else deps.log.error({ segments, subscriptions, differences, details }, 'audit found differences');
  if (prunable !== undefined) {
    const deleted = await pruneSegments(deps.pool, prunable, deps.signal);
    if (deleted > 0) deps.log.info({ deleted, upToId: prunable.upToId }, 'segments pruned');
  }
  return found;
}

/**
 * Runs the audit if the last one is a day old. The worker calls this more often than daily. So an
 * audit runs again soon if it failed because a store was away or the worker stopped. A stop is not a
 * failure.
 */
export async function runAuditIfDue(deps: AuditDeps): Promise<void> {
  const last = await lastAudit(deps.pool);
  if (last !== undefined && last.ageSeconds < auditEverySeconds) return;
  try {
    await runAudit(deps);
  } catch (thrown) {
    if (!deps.signal.aborted) throw thrown;
  }
}
