import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { migrate } from '../../../src/app/migrate.ts';
import { readConfig } from '../../../src/config.ts';
import { createLogger } from '../../../src/log.ts';
import { createNode } from '../../../src/nodes/change.ts';
import { registerNode } from '../../../src/nodes/registration.ts';
import { roleFlags } from '../../../src/processes/node-flags.ts';
import { projectRoot } from '../../../src/root.ts';
import { createPool } from '../../../src/stores/postgres.ts';
import { residentBytes } from '../memory.ts';
import type { StallAnswer } from './stall-probe.ts';

/** The api process that the fuzzer attacks. */
export interface FuzzedCore {
  port: number;
  authKey: string;
  /** Resident memory in MiB; undefined if the system does not tell. */
  residentMb(): number | undefined;
  /** CPU time of the longest turn of its event loop since the last call. It answers nobody meanwhile. */
  longestTurnMs(): Promise<number>;
  /** Error lines of its log, and how it ended if it has. */
  faults(): string[];
  stop(): Promise<void>;
}

/** The message that stall-probe.ts answers. */
const stallQuestion = 'longest-turn';
const readyMsMax = 30_000;
const faultsMax = 20;

/** Migrates, makes a node, and starts `core serve` on the stores that `environment` names. */
export async function startFuzzedCore(environment: Record<string, string>): Promise<FuzzedCore> {
  const settings = {
    ...environment,
    CORE_LOG_LEVEL: 'error',
    CORE_REGISTRATION_FAILURES_MAX: '10000',
    CORE_NODE_ERRORS_MAX: '10000',
  };
  const config = readConfig(settings);
  await migrate(config, createLogger('error'));
  const pool = createPool(config.stores.postgresUrl, { max: 1 });
  let authKey: string;
  try {
    const empty = { host: '', ip: '' };
    const options = { ...empty, name: 'fuzz', region: 'eu' };
    const { code } = await createNode(pool, options, config.nodes);
    ({ authKey } = await registerNode(pool, { ...options, code }));
  } finally {
    await pool.end();
  }
  const program = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
  const probe = pathToFileURL(
    path.join(projectRoot, 'dist', 'test', 'harness', 'fuzz', 'stall-probe.js'),
  );
  const args = [...roleFlags.serve, '--import', probe.href, program, 'serve'];
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { PATH: process.env['PATH'], ...settings },
  });
  const faults: string[] = [];
  assert(child.stderr !== null, 'its log is a pipe');
  createInterface({ input: child.stderr }).on('line', (line) => {
    if (faults.length < faultsMax) faults.push(`log: ${line}`);
  });
  let stopping = false;
  child.once('exit', (code, signal) => {
    if (!stopping) faults.push(`the api process ended: ${code ?? signal}`);
  });
  await untilReady(child, config.http.port, faults);
  return {
    port: config.http.port,
    authKey,
    residentMb: () => residentMb(child.pid),
    async longestTurnMs() {
      const answered = untilStallAnswer(child);
      child.send(stallQuestion);
      return answered;
    },
    faults: () => faults,
    async stop() {
      stopping = true;
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}

/** Waits for the probe's answer. Core also sends messages of its own over this channel. */
async function untilStallAnswer(child: ChildProcess): Promise<number> {
  for (;;) {
    const [message] = (await once(child, 'message')) as [Partial<StallAnswer>];
    if (message.longestTurnMs !== undefined) return message.longestTurnMs;
  }
}

async function untilReady(child: ChildProcess, port: number, faults: string[]): Promise<void> {
  const deadlineMs = performance.now() + readyMsMax;
  for (;;) {
    const ready = await fetch(`http://127.0.0.1:${port}/readyz`).then(
      (response) => response.ok,
      () => false,
    );
    if (ready) return;
    if (child.exitCode !== null || performance.now() > deadlineMs) {
      child.kill('SIGKILL');
      throw new Error(`core serve is not ready: ${faults.join('\n')}`);
    }
    await new Promise((resume) => setTimeout(resume, 50));
  }
}

function residentMb(pid: number | undefined): number | undefined {
  const bytes = residentBytes(pid);
  return bytes === undefined ? undefined : Math.round(bytes / 1_048_576);
}
