import type { Redis } from 'ioredis';
import type pg from 'pg';
import { Gauge, Registry } from 'prom-client';
import { readBacklog } from '../../ingest/backlog.ts';
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
  return {
    method: 'GET',
    path: '/metrics',
    authenticated: false,
    async handle() {
      const [streams, counts] = await Promise.all([
        readBacklog(deps.pool, deps.redis, deps.prefix),
        countNodes(deps.pool, deps.offlineSeconds),
      ]);
      registry.resetMetrics();
      for (const stream of streams) {
        const labels = { stream: stream.stream };
        bytes.set(labels, stream.bytes);
        unsettled.set(labels, stream.segments);
        lag.set(labels, stream.lagSeconds);
        unknown.set(labels, stream.unknownRows);
      }
      for (const [status, count] of Object.entries(counts)) nodes.set({ status }, count);
      return {
        status: 200,
        headers: { 'Content-Type': registry.contentType },
        body: await registry.metrics(),
      };
    },
  };
}
