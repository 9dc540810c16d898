import type { Redis } from 'ioredis';
import type pg from 'pg';
import { Gauge, Registry } from 'prom-client';
import { lastAudit } from '../../audit/run-audit.ts';
import { countRejected, readBacklog } from '../../ingest/backlog.ts';
import { countNodes } from '../../nodes/count.ts';
import type { Route } from '../route.ts';

/**
 * GET /metrics in Prometheus' text format. Every value comes from the stores, so that it does not
 * matter which of several api processes answers the scrape.
 */
export function metricsRoute(deps: {
  pool: pg.Pool;
  redis: Redis;
  prefix: string;
  offlineSeconds: number;
}): Route {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: string[]) =>
    new Gauge({ name, help, labelNames, registers: [registry] });
  const bytes = gauge('core_backlog_bytes', 'Bytes in Redis not yet settled.', ['stream']);
  const unsettled = gauge('core_segments_unsettled', 'Segments sealed and not settled.', [
    'stream',
  ]);
  const lag = gauge('core_lag_seconds', 'Age of the oldest entry accepted and not settled.', [
    'stream',
  ]);
  const unknown = gauge(
    'core_unknown_rows_total',
    'Rows settled that named a subscription or node that does not exist.',
    ['stream'],
  );
  const nodes = gauge('core_nodes', 'Nodes by status.', ['status']);
  const rejected = gauge(
    'core_rejected_rows_total',
    'Rows that ClickHouse refused for what they hold; they are in rejected_rows.',
    [],
  );
  const differences = gauge(
    'core_reconcile_differences',
    'Differences that the last audit found between segments, rows and counters.',
    [],
  );
  const auditAge = gauge(
    'core_reconcile_age_seconds',
    'Age of the last audit; infinite before the first one.',
    [],
  );
  return {
    method: 'GET',
    path: '/metrics',
    authenticated: false,
    async handle() {
      const [streams, counts, audit, rejectedRows] = await Promise.all([
        readBacklog(deps.pool, deps.redis, deps.prefix),
        countNodes(deps.pool, deps.offlineSeconds),
        lastAudit(deps.pool),
        countRejected(deps.pool),
      ]);
      registry.resetMetrics();
      for (const stream of streams) {
        const labels = { stream: stream.stream };
        bytes.set(labels, stream.bytes);
        unsettled.set(labels, stream.segments);
        lag.set(labels, stream.lagSeconds);
        unknown.set(labels, stream.unknownRows);
      }
      rejected.set(rejectedRows);
      differences.set(audit?.differences ?? 0);
      auditAge.set(audit?.ageSeconds ?? Number.POSITIVE_INFINITY);
      for (const [status, count] of Object.entries(counts)) nodes.set({ status }, count);
      return {
        status: 200,
        headers: { 'Content-Type': registry.contentType },
        body: await registry.metrics(),
      };
    },
  };
}
