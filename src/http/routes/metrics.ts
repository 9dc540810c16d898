import type { Redis } from 'ioredis';
import type pg from 'pg';
import { Gauge, Registry } from 'prom-client';
import { lastAudit } from '../../audit/run-audit.ts';
import type { HealthLimits } from '../../nodes/node-state.ts';
import { countNodes } from '../../nodes/node-state.ts';
import { countVersions } from '../../nodes/versions.ts';
import { readPageCounts } from '../../pages/page-counts.ts';
import { countUnpublished } from '../../publish/drift.ts';
import { countFaulty } from '../../publish/faulty.ts';
import {
  countRejected,
  countUnsettled,
  readBacklog,
  type StreamBacklog,
} from '../../spool/backlog.ts';
import { classifyFailure } from '../../stores/failures.ts';
import { type Readiness, type StoreName, storeNames } from '../../stores/readiness.ts';
import { readWebhookHealth, type WebhookHealth } from '../../webhooks/health.ts';
import type { Route } from '../route.ts';

/**
 * GET /metrics in Prometheus' text format. Every value comes from the stores, so any api process can
 * answer the scrape. While a store is away, its metrics are left out and `core_store_up` says so. The
 * scrape itself succeeds, so that alarms about a store work while the store is away.
 */
export function metricsRoute(deps: {
  pool: pg.Pool;
  redis: Redis;
  prefix: string;
  health: HealthLimits;
  readiness: Readiness;
}): Route {
  const registry = new Registry();
  const gauge: MakeGauge = (name, help, labelNames) =>
    new Gauge({ name, help, labelNames, registers: [registry] });
  const setAway = storeGauge(gauge);
  const setStreams = streamGauges(gauge);
  const setCounts = countGauges(gauge);
  const setWebhook = webhookGauges(gauge);
  const setPages = pageGauge(gauge);
  return {
    method: 'GET',
    path: '/metrics',
    authenticated: false,
    async handle() {
      const [away, streams, webhook, pages, counts] = await Promise.all([
        deps.readiness.storesAway(),
        unlessAway(readBacklog(deps.pool, deps.redis, deps.prefix)),
        unlessAway(readWebhookHealth(deps.redis, deps.prefix)),
        unlessAway(readPageCounts(deps.redis, deps.prefix)),
        readCounts(deps.pool, deps.health),
      ]);
      registry.resetMetrics();
      setAway(away);
      setStreams(streams ?? []);
      setWebhook(webhook);
      setPages(pages ?? []);
      setCounts(counts);
      return {
        status: 200,
        headers: { 'Content-Type': registry.contentType },
        body: await registry.metrics(),
      };
    },
  };
}

type MakeGauge = (name: string, help: string, labelNames: string[]) => Gauge;

function storeGauge(gauge: MakeGauge): (away: readonly StoreName[]) => void {
  const up = gauge('core_store_up', '1 if the store answers this api process, else 0.', ['store']);
  return (away) => {
    for (const store of storeNames) up.set({ store }, away.includes(store) ? 0 : 1);
  };
}

function streamGauges(gauge: MakeGauge): (streams: readonly StreamBacklog[]) => void {
  const bytes = gauge('core_backlog_bytes', 'Bytes in the spool that are not settled.', ['stream']);
  const accepted = gauge('core_rows_accepted_total', 'Rows ever accepted.', ['stream']);
  const unsettled = gauge('core_segments_unsettled', 'Segments that are sealed and not settled.', [
    'stream',
  ]);
  const lag = gauge('core_lag_seconds', 'Age of the oldest stream entry that is not settled.', [
    'stream',
  ]);
  const unknown = gauge(
    'core_unknown_rows_total',
    'Rows settled that named a subscription or node that does not exist.',
    ['stream'],
  );
  return (streams) => {
    for (const { stream, ...backlog } of streams) {
      bytes.set({ stream }, backlog.bytes);
      accepted.set({ stream }, backlog.rowsEver);
      unsettled.set({ stream }, backlog.segments);
      lag.set({ stream }, backlog.lagSeconds);
      unknown.set({ stream }, backlog.unknownRows);
    }
  };
}

function pageGauge(gauge: MakeGauge): (pages: Awaited<ReturnType<typeof readPageCounts>>) => void {
  const requests = gauge(
    'core_page_requests_total',
    'Requests for subscription pages, by format and by how they ended.',
    ['format', 'outcome'],
  );
  return (pages) => {
    for (const { count, ...labels } of pages) requests.set(labels, count);
  };
}

/** The other values from Postgres; each is undefined while Postgres is away. */
async function readCounts(pool: pg.Pool, health: HealthLimits) {
  const [nodes, unpublished, faulty, versions, segments, rejected, audit] = await Promise.all([
    unlessAway(countNodes(pool, health)),
    unlessAway(countUnpublished(pool)),
    unlessAway(countFaulty(pool)),
    unlessAway(countVersions(pool)),
    unlessAway(countUnsettled(pool)),
    unlessAway(countRejected(pool)),
    unlessAway(lastAudit(pool).then((last) => ({ last }))),
  ]);
  return { nodes, unpublished, faulty, versions, segments, rejected, audit };
}

function countGauges(gauge: MakeGauge): (counts: Awaited<ReturnType<typeof readCounts>>) => void {
  const oldest = gauge(
    'core_segments_oldest_seconds',
    'Age of the oldest segment that is sealed and not settled; 0 if all are settled.',
    [],
  );
  const nodes = gauge('core_nodes', 'Nodes by status.', ['status']);
  const unpublished = gauge(
    'core_nodes_unpublished',
    'Nodes with a change that no worker has published yet.',
    [],
  );
  const rolledBack = gauge(
    'core_nodes_rolled_back',
    'Nodes that Core rolled back by itself, because they refused their newest settings.',
    [],
  );
  const versions = gauge(
    'core_nodes_xray',
    'Nodes by the year and month of the Xray that they report; other if there are too many.',
    ['version'],
  );
  const rejected = gauge(
    'core_rejected_rows_total',
    'Rows that ClickHouse refused for their data; they are in rejected_rows.',
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
  return (counts) => {
    const { audit } = counts;
    set(oldest, counts.segments?.oldestSeconds);
    set(unpublished, counts.unpublished?.nodes);
    set(rolledBack, counts.faulty?.nodes);
    for (const { version, count } of counts.versions ?? []) versions.set({ version }, count);
    set(rejected, counts.rejected);
    set(differences, audit && (audit.last?.differences ?? 0));
    set(auditAge, audit && (audit.last?.ageSeconds ?? Number.POSITIVE_INFINITY));
    for (const [status, count] of Object.entries(counts.nodes ?? {})) nodes.set({ status }, count);
  };
}

/** @returns a function that sets them all. Its argument is undefined while Redis is away. */
function webhookGauges(gauge: MakeGauge): (health: WebhookHealth | undefined) => void {
  const failures = gauge(
    'core_webhook_failures_total',
    'Attempts that the webhook did not answer with 2xx.',
    [],
  );
  const failing = gauge(
    'core_webhook_failing_seconds',
    'Time since the first failed attempt after the last successful one; 0 if there is none.',
    [],
  );
  const dead = gauge(
    'core_webhook_dead_letters',
    'Events that Core has given up; see core webhook list.',
    [],
  );
  const waiting = gauge('core_webhook_waiting', 'Events that wait to be sent.', []);
  return (health) => {
    set(failures, health?.failuresEver);
    set(failing, health?.failingSeconds);
    set(dead, health?.deadLetters);
    set(waiting, health?.waiting);
  };
}

/** A gauge without labels shows 0 by default, so a gauge without a value is removed. */
function set(gauge: Gauge, value: number | undefined): void {
  if (value === undefined) gauge.remove();
  else gauge.set(value);
}

async function unlessAway<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (thrown) {
    if (classifyFailure(thrown).code !== 'STORE_UNAVAILABLE') throw thrown;
    return undefined;
  }
}
