import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { projectRoot } from '../../src/root.ts';
import type { BodySet } from './bodies.ts';

/** What wrk sends. The target is Core or a peer: anything that speaks HTTP. */
export interface WrkPlan {
  /** Origin, e.g. `http://127.0.0.1:8080`. */
  url: string;
  method: 'GET' | 'POST';
  path: string;
  headers: Record<string, string>;
  /** A header with values that take turns, request by request. All values have one length. */
  keys?: { header: string; values: readonly string[] };
  /** Bodies that take turns and are changed for each request. Without it `fixedBody` is sent. */
  bodies?: BodySet;
  /** The same bytes every time, for heartbeats. */
  fixedBody?: string;
  connections: number;
  seconds: number;
  /** Requests a second until `setRate`. Without it wrk sends as many as the target answers. */
  rate?: number;
  /** Another one for each run against a target, so that no run repeats a body of another one. */
  seed: number;
}

export interface WrkResult {
  seconds: number;
  /** Answers of any status. */
  requests: number;
  /** Answers with a status under 400. */
  ok: number;
  /** Answers with a status of 400 and more. */
  refused: number;
  /** Connections that failed or timed out. */
  lost: number;
  /** Bytes of the answers with their headers. */
  bytes: number;
  /** From the moment a request is written, so a stall hides the requests that it held up. */
  latencyMs: { p50: number; p99: number; p999: number; max: number };
}

interface WrkRun {
  pid: number | undefined;
  /** Requests a second from now on. Only for a run that was started with a rate. */
  setRate(requestsPerSecond: number): void;
  /** Ends the run early. `result` then covers what it did. */
  stop(): void;
  result: Promise<WrkResult>;
}

const script = path.join(projectRoot, 'bench', 'measure', 'requests.lua');
/** A run that takes this much longer than planned is killed. */
const overtimeMs = 20_000;

/** Starts wrk with one thread. Rejects with one clear line if wrk is missing. */
export async function startWrk(plan: WrkPlan): Promise<WrkRun> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'core-wrk-'));
  const rateFile = path.join(dir, 'rate');
  const setRate = (rate: number): void => {
    // A rename is atomic, so the sender never reads half a number.
    writeFileSync(`${rateFile}.new`, String(rate));
    renameSync(`${rateFile}.new`, rateFile);
  };
  if (plan.rate !== undefined) setRate(plan.rate);
  const planFile = path.join(dir, 'plan.lua');
  writeFileSync(planFile, writePlan(dir, plan, plan.rate === undefined ? '' : rateFile));
  const child = spawn(
    'wrk',
    [
      ...['-t', '1', '-c', String(plan.connections), '-d', `${Math.ceil(plan.seconds)}s`],
      ...['--timeout', '10s', '-s', script, plan.url],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, CORE_BENCH_PLAN: planFile } },
  );
  try {
    await once(child, 'spawn');
  } catch (cause) {
    rmSync(dir, { recursive: true, force: true });
    throw new Error('wrk is not on the PATH: install it (apt-get install wrk) to run this bench', {
      cause,
    });
  }
  const result = readResult(child, plan.seconds * 1_000 + overtimeMs).finally(() =>
    rmSync(dir, { recursive: true, force: true }),
  );
  // If the result fails before the caller awaits it, an unhandled rejection would end the process.
  result.catch(() => undefined);
  return {
    pid: child.pid,
    setRate,
    stop: () => void child.kill('SIGINT'),
    result,
  };
}

/** Runs wrk to its end. */
export async function runWrk(plan: WrkPlan): Promise<WrkResult> {
  return (await startWrk(plan)).result;
}

/** Writes requests and keys to files, and returns the plan for requests.lua in Lua. */
function writePlan(dir: string, plan: WrkPlan, rateFile: string): string {
  const bodies = plan.bodies?.bodies ?? [Buffer.from(plan.fixedBody ?? '')];
  const bodyLength = bodies[0]?.length ?? 0;
  const keyLength = plan.keys?.values[0]?.length ?? 0;
  const headers = {
    host: new URL(plan.url).host,
    ...plan.headers,
    ...(plan.method === 'POST' ? { 'content-length': String(bodyLength) } : {}),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  let head = `${plan.method} ${plan.path} HTTP/1.1\r\n${lines.join('')}`;
  if (plan.keys !== undefined) head += `${plan.keys.header}: `;
  const keyAt = head.length;
  if (plan.keys !== undefined) head += `${'k'.repeat(keyLength)}\r\n`;
  head += '\r\n';
  const requests = path.join(dir, 'requests');
  writeFileSync(requests, Buffer.concat(bodies.flatMap((body) => [Buffer.from(head), body])));
  const keys = path.join(dir, 'keys');
  writeFileSync(keys, plan.keys?.values.join('') ?? '');
  const { bodies: set } = plan;
  const fields: Record<string, string | number> = {
    requests,
    keys,
    rate: rateFile,
    length: head.length + bodyLength,
    count: bodies.length,
    keyAt,
    keyLength,
    keyCount: plan.keys?.values.length ?? 0,
    entries: set?.entries ?? 0,
    firstAt: head.length + (set?.firstAt ?? 0),
    stride: set?.stride ?? 0,
    fourA: set?.fours[0] ?? 0,
    fourB: set?.fours[1] ?? 0,
    sixtyA: set?.sixties[0] ?? -1,
    sixtyB: set?.sixties[1] ?? -1,
    seed: (plan.seed % 2_147_483_647) + 1,
  };
  const entries = Object.entries(fields).map(([name, value]) =>
    typeof value === 'number' ? `${name} = ${value}` : `${name} = ${JSON.stringify(value)}`,
  );
  return `return { ${entries.join(', ')} }\n`;
}

async function readResult(child: ChildProcess, msMax: number): Promise<WrkResult> {
  let output = '';
  let complaints = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaints += text;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), msMax);
  await once(child, 'close');
  clearTimeout(timer);
  const line = /^BENCH (\{.*\})$/m.exec(output)?.[1];
  if (line === undefined) {
    throw new Error(`wrk ended without a result: ${complaints.trim() || output.trim()}`);
  }
  const found = JSON.parse(line) as Record<string, number>;
  const number = (name: string): number => found[name] ?? 0;
  return {
    seconds: number('seconds'),
    requests: number('requests'),
    ok: number('requests') - number('status'),
    refused: number('status'),
    lost: number('lost'),
    bytes: number('bytes'),
    latencyMs: {
      p50: number('p50') / 1_000,
      p99: number('p99') / 1_000,
      p999: number('p999') / 1_000,
      max: number('max') / 1_000,
    },
  };
}
