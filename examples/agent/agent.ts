import path from 'node:path';
import type { Logger } from '../../src/log.ts';
import { type CoreClient, createClient, describe, pause } from './client.ts';
import { createClock } from './clock.ts';
import { openConfigStore } from './config-store.ts';
import { drain } from './drain.ts';
import type { Identity } from './identity.ts';
import { openLedger } from './ledger.ts';
import { createLoadMeter, type Load } from './load.ts';
import { createProxyRunner } from './proxy.ts';
import { createReports, type Report } from './reports.ts';
import { createService, type Service } from './service.ts';
import type { Settings } from './settings.ts';

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
  const clock = createClock();
  const client = createClient(
    { url: settings.url, timeoutMs: 30_000, backOffMsMax: retryMs, signal, onDate: clock.heard },
    identity.authKey,
  );
  const ledger = openLedger(settings.dataDir, { bytesMax: settings.spoolBytesMax });
  const configs = openConfigStore(settings.dataDir);
  const runner = createProxyRunner({ program: settings.xray, dataDir: settings.dataDir });
  const reports = createReports(client, log);
  const service = createService({
    settings,
    clock,
    ledger,
    configs,
    runner,
    log,
    report: reports.put,
  });
  await service.start();
  // Reported again, because the agent may have been killed between its apply and its report.
  for (const report of service.standing()) reports.put(report);

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
  let seen: { revision: number; said: readonly Report[]; atMs: number } | undefined;
  const isApplied = (): boolean => seen?.said[0]?.kind === 'applied';
  return async () => {
    const now = performance.now();
    const tryAgain =
      seen !== undefined && !isApplied() && now - seen.atMs >= settings.reapplySeconds * 1_000;
    const answer = await client.config(tryAgain ? undefined : seen?.revision);
    if (answer.kind === 'notModified') {
      // Core still asks for a sync, so it has not received the report of this apply.
      if (seen === undefined || !isApplied()) return;
      reports.forgetLast();
      for (const report of seen.said) reports.put(report);
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
    const said = await service.apply(config);
    seen = { revision: config.revision, said, atMs: now };
    for (const report of said) reports.put(report);
  };
}
