import path from 'node:path';
import type { Logger } from '../../src/log.ts';
import { type Answer, type CoreClient, createClient, describe, pause } from './client.ts';
import { openConfigStore } from './config-store.ts';
import { drain } from './drain.ts';
import type { Identity } from './identity.ts';
import { openLedger } from './ledger.ts';
import { createLoadMeter, type Load } from './load.ts';
import { createProxyRunner } from './proxy.ts';
import { createService, type Report, type Service } from './service.ts';
import type { Settings } from './settings.ts';

const reportsMax = 16;
/** Of the heartbeat. It goes up with what the agent can do. */
export const agentVersion = '2.0.0';

export interface Agent {
  /** Stops the calls to Core, then reads the counters a last time, then stops the proxy. */
  close(): Promise<void>;
}

/** Connects the parts: the proxy with its counters, the stored posts, and the calls to Core. */
export async function startAgent(
  settings: Settings,
  identity: Identity,
  log: Logger,
): Promise<Agent> {
  const stop = new AbortController();
  const { signal } = stop;
  const retryMs = settings.retrySeconds * 1_000;
  const client = createClient(
    { url: settings.url, timeoutMs: 30_000, backOffMsMax: retryMs, signal },
    identity.authKey,
  );
  const ledger = openLedger(settings.dataDir, { bytesMax: settings.spoolBytesMax });
  const configs = openConfigStore(settings.dataDir);
  const runner = createProxyRunner({ program: settings.xray, dataDir: settings.dataDir });
  const reports = createReports(client, log);
  const service = createService({ settings, ledger, configs, runner, log, report: reports.put });
  await service.start();
  const applied = configs.applied();
  // Reported again, because the agent may have been killed between its apply and its report.
  if (applied !== undefined) reports.put({ kind: 'applied', revision: applied });

  const talking = talk({
    settings,
    client,
    service,
    reports,
    log,
    signal,
    applied: configs.applied,
    xrayVersion: () => runner.version(),
  });
  const draining = drain({ client, ledger, log, retryMs, signal });
  const sampling = setInterval(() => void service.sample(), settings.usageSeconds * 1_000);
  log.info({ nodeId: identity.nodeId, dataDir: path.resolve(settings.dataDir) }, 'agent runs');
  return {
    async close() {
      clearInterval(sampling);
      stop.abort();
      await Promise.all([talking, draining]);
      await service.close();
    },
  };
}

/** Reports about the configuration that Core has not received yet, oldest first. */
function createReports(client: CoreClient, log: Logger) {
  const waiting: Report[] = [];
  let last = '';
  return {
    put(report: Report): void {
      // The same report again says nothing new, for instance that a configuration fails once more.
      if (JSON.stringify(waiting.at(-1)) === JSON.stringify(report)) return;
      waiting.push(report);
      if (waiting.length > reportsMax) waiting.shift();
    },
    /** Makes the last report count as not sent: Core has not received it after all. */
    forgetLast(): void {
      last = '';
    },
    /** Sends reports until all are sent or Core does not answer. */
    async send(): Promise<void> {
      for (let report = waiting[0]; report !== undefined; report = waiting[0]) {
        const text = JSON.stringify(report);
        if (text !== last) {
          const answer = await sendReport(client, report);
          if (answer.kind === 'away') return;
          if (answer.kind === 'refused') log.error({ answer, report }, 'Core refused a report');
        }
        last = text;
        if (waiting[0] === report) waiting.shift();
      }
    },
  };
}

function sendReport(client: CoreClient, report: Report): Promise<Answer<unknown>> {
  const { revision } = report;
  if (report.kind === 'applied') return client.applied({ revision: report.revision });
  return client.error({
    message: report.message,
    code: report.code,
    details: { ...report.details, ...(revision === undefined ? {} : { revision }) },
  });
}

interface Talk {
  settings: Settings;
  client: CoreClient;
  service: Service;
  reports: ReturnType<typeof createReports>;
  applied: () => number | undefined;
  xrayVersion: () => Promise<string>;
  log: Logger;
  signal: AbortSignal;
}

/** What an older Core does not know of a heartbeat, it ignores. */
interface Beat {
  ip?: string;
  revision?: number;
  versions: { agent: string; xray?: string };
  load: Load;
}

/** The version of the program on the disk; none if it is missing. */
async function xrayVersionOf({ xrayVersion }: Talk): Promise<{ xray?: string }> {
  return xrayVersion().then(
    (xray) => ({ xray }),
    () => ({}),
  );
}

/** Sends heartbeats until the signal. If Core asks for it, pulls the configuration. */
async function talk(context: Talk): Promise<void> {
  const { settings, client, reports, applied, log, signal } = context;
  const pull = createPull(context);
  const load = createLoadMeter();
  let isAway = false;
  while (!signal.aborted) {
    let waitMs = settings.heartbeatSeconds * 1_000 * (0.9 + 0.2 * Math.random());
    try {
      await reports.send();
      const revision = applied();
      const answer = await client.heartbeat({
        ...(settings.ip === '' ? {} : { ip: settings.ip }),
        ...(revision === undefined ? {} : { revision }),
        versions: { agent: agentVersion, ...(await xrayVersionOf(context)) },
        load: load.read(),
      } satisfies Beat);
      if (isAway && answer.kind === 'ok') log.info('Core answers again');
      if (answer.kind === 'ok' && answer.value.needSync) {
        await pull();
        await reports.send();
      } else if (answer.kind === 'refused') {
        log.error({ answer }, 'Core refused a heartbeat');
      } else if (answer.kind === 'away' && !signal.aborted) {
        if (!isAway) log.warn({ reason: answer.reason }, 'Core does not answer');
        waitMs = Math.max(waitMs, Math.min(answer.retryAfterMs, settings.retrySeconds * 1_000));
      }
      isAway = answer.kind === 'away';
    } catch (thrown) {
      log.error({ err: thrown }, 'a heartbeat failed');
      reports.put({ kind: 'error', code: 'AGENT', message: describe(thrown), revision: applied() });
    }
    await pause(waitMs, signal);
  }
}

/** Pulls each revision once. Pulls a revision that could not be applied again after a while. */
function createPull({ settings, client, service, reports, log }: Talk): () => Promise<void> {
  let seen: { revision: number; isApplied: boolean; atMs: number } | undefined;
  return async () => {
    const now = performance.now();
    const triedAtMs = seen?.isApplied === false ? seen.atMs : undefined;
    const tryAgain = triedAtMs !== undefined && now - triedAtMs >= settings.reapplySeconds * 1_000;
    const answer = await client.config(tryAgain ? undefined : seen?.revision);
    if (answer.kind === 'notModified') {
      // Core still asks for a sync, so it has not received the report of this apply.
      if (!seen?.isApplied) return;
      reports.forgetLast();
      reports.put({ kind: 'applied', revision: seen.revision });
      return;
    }
    if (answer.kind !== 'ok') {
      log.warn({ answer }, 'no configuration from Core');
      return;
    }
    const config = answer.value;
    if (!Number.isSafeInteger(config.revision) || typeof config.clientMap !== 'object') {
      throw new Error('Core sent something that is not a configuration');
    }
    const report = await service.apply(config);
    seen = { revision: config.revision, isApplied: report.kind === 'applied', atMs: now };
    reports.put(report);
  };
}
