// `npm test [-- tap arguments]`: starts the stores once, runs tap with them, and stops them.
import { spawn } from 'node:child_process';
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { bootstrap, root } from './bootstrap.mjs';

/** Longest time for an interrupted run to end. A Core under test stops within it. */
const endMsMax = 10_000;

await bootstrap();
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => interrupted.abort());
}
process.exitCode = await main(process.argv.slice(2));

async function main(args) {
  const support = path.join(root, 'dist', 'test', 'support', 'servers.js');
  const { startTestServers } = await import(pathToFileURL(support).href);
  let servers;
  try {
    servers = await startTestServers(interrupted.signal);
  } catch (thrown) {
    process.stderr.write(`The test servers cannot be started: ${thrown.message}\n`);
    return 1;
  }
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'core-tap-'));
  const report = path.join(scratch, 'report.tap');
  let code;
  try {
    code = interrupted.signal.aborted ? 1 : await tap(args, servers.environment, report);
  } finally {
    await servers.stop();
  }
  const summary = readSummary(report);
  rmSync(scratch, { recursive: true, force: true });
  if (interrupted.signal.aborted) {
    process.stderr.write('interrupted\n');
    return 1;
  }
  if (summary === undefined) {
    process.stderr.write('tap ended without a summary\n');
    return code === 0 ? 1 : code;
  }
  process.stdout.write(`${summary.pass} passed, ${summary.fail} failed\n`);
  return code;
}

/**
 * Runs tap and returns its exit code. A signal to this process ends tap, which ends the tests. In a
 * terminal tap draws its progress and writes the TAP lines to a file. Otherwise its output is the TAP
 * lines, which are passed on and also written to that file.
 */
function tap(args, environment, report) {
  const program = path.join(root, 'node_modules', 'tap', 'dist', 'esm', 'run.mjs');
  const coverage = args.some((arg) => arg.includes('coverage')) ? [] : ['--disable-coverage'];
  const draws = process.stdout.isTTY || args.some((arg) => /^(-R|--reporter)/.test(arg));
  const output = draws ? [`--output-file=${report}`] : [];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...coverage, ...output, ...args], {
      cwd: root,
      stdio: ['ignore', draws ? 'inherit' : 'pipe', 'inherit'],
      env: { ...process.env, ...environment },
      // A process group of its own, since tap does not pass a signal on to processes of its tests.
      detached: true,
    });
    let killing;
    const end = () => {
      signalGroup(child.pid, 'SIGTERM');
      killing = setTimeout(() => signalGroup(child.pid, 'SIGKILL'), endMsMax);
    };
    interrupted.signal.addEventListener('abort', end, { once: true });
    child.stdout?.pipe(process.stdout, { end: false });
    child.stdout?.pipe(createWriteStream(report));
    child.once('error', reject);
    child.once('close', (code) => {
      clearTimeout(killing);
      resolve(code ?? 1);
    });
  });
}

function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
  } catch (thrown) {
    // All processes of the group have ended already.
    if (thrown.code !== 'ESRCH') throw thrown;
  }
}

/** tap's own count of assertions: `# { total: 5, pass: 3, fail: 1, skip: 1 }`. */
function readSummary(report) {
  let text;
  try {
    text = readFileSync(report, 'utf8');
  } catch {
    return undefined;
  }
  const line = text.match(/^# \{ total: \d+.*\}$/gm)?.at(-1);
  if (line === undefined) return undefined;
  const count = (name) => Number(line.match(new RegExp(`${name}: (\\d+)`))?.[1] ?? 0);
  return { pass: count('pass'), fail: count('fail') };
}
