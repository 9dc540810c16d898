// `npm run real-node [-- --xray PATH|VERSION] [--only NAME]`: the agent on a real Xray, with real clients, on a
// real Core. Each part is killed during transfers, and the bytes are compared. `npm test` does not run it,
// since not every machine has Xray. NAME is `sessions`, `real-node` or `faulty-part`.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root } from './bootstrap.mjs';

/** A run takes minutes, and on a busy machine it takes many. */
const secondsMax = 2_400;

const args = process.argv.slice(2);
const xray = xrayOf(args);
if (xray === undefined || !existsSync(xray)) {
  const where = xray ?? 'in the cache of npm run conformance';
  process.stderr.write(
    `real-node: no Xray ${where}: run npm run conformance, or name one with --xray\n`,
  );
  process.exit(2);
}
process.stdout.write(`Xray: ${xray}\n`);
const folder = path.join('test', 'examples', 'agent');
const names = readdirSync(path.join(root, folder))
  .filter((name) => name.endsWith('.xray.ts'))
  .map((name) => name.slice(0, -'.xray.ts'.length));
const only = args.includes('--only') ? args[args.indexOf('--only') + 1] : undefined;
if (only !== undefined && !names.includes(only)) {
  process.stderr.write(`real-node: there is no run ${only}: give one of ${names.join(', ')}\n`);
  process.exit(2);
}
const tests = (only === undefined ? names : [only]).map((name) =>
  path.join(folder, `${name}.xray.ts`),
);
// One after the other: each has its own Core, proxies and clients, and their figures are of time, too.
const options = ['--jobs=1', `--timeout=${secondsMax}`];
const program = path.join(root, 'scripts', 'test.mjs');
const child = spawn(process.execPath, [program, ...options, ...tests], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, CORE_TEST_XRAY: path.resolve(xray) },
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.once('exit', (code) => process.exit(code ?? 1));

/** What --xray names: a file, or a version in the cache of `npm run conformance`. Otherwise the newest one there. */
function xrayOf(args) {
  const cache = process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache');
  const folder = path.join(cache, 'core', 'programs');
  const at = args.indexOf('--xray');
  const given = at === -1 ? undefined : args[at + 1];
  if (given !== undefined && /^\d+\.\d+\.\d+$/.test(given)) {
    return path.join(folder, `xray-${given}`);
  }
  if (at !== -1) return given;
  if (!existsSync(folder)) return undefined;
  const versions = readdirSync(folder)
    .filter((name) => /^xray-\d+\.\d+\.\d+$/.test(name))
    .sort((left, right) => left.localeCompare(right, 'en', { numeric: true }));
  const newest = versions.at(-1);
  return newest === undefined ? undefined : path.join(folder, newest);
}
