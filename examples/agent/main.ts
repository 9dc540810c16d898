#!/usr/bin/env node
import { Lifecycle, untilSignalled } from '../../src/lifecycle.ts';
import { createLogger } from '../../src/log.ts';
import { startAgent } from './agent.ts';
import { checkMachine } from './check.ts';
import { claimDataDir, loadOrRegister } from './identity.ts';
import { readSettings } from './settings.ts';

const settings = readSettings(process.argv.slice(2));
const log = createLogger(settings.logLevel);
const lifecycle = new Lifecycle();
const signalled = untilSignalled();
if (settings.check) {
  const findings = await checkMachine(settings);
  for (const { level, text } of findings) process.stdout.write(`${level.padEnd(8)}${text}\n`);
  process.exit(findings.some(({ level }) => level === 'fault') ? 1 : 0);
}
try {
  const claim = claimDataDir(settings.dataDir);
  lifecycle.use('data directory', () => claim.release());
  const { identity, isNew } = await loadOrRegister(settings, {
    url: settings.url,
    timeoutMs: 30_000,
    backOffMsMax: settings.retrySeconds * 1_000,
    signal: new AbortController().signal,
  });
  if (isNew) log.info({ nodeId: identity.nodeId }, 'registered');
  const agent = await startAgent(settings, identity, log);
  lifecycle.use('agent', () => agent.close());
  log.info({ signal: await signalled }, 'stopping');
} catch (thrown) {
  process.stderr.write(`agent: ${thrown instanceof Error ? thrown.message : String(thrown)}\n`);
  process.exitCode = 1;
} finally {
  await lifecycle.close();
}
