// `npm run real-node [-- --xray PATH]`: the agent on a real Xray, with real clients, on a real Core. Each
// part is killed during transfers, and the bytes are compared. `npm test` does not run it, since not
// every machine has Xray.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root } from './bootstrap.mjs';

const xray = xrayOf(process.argv.slice(2));
if (xray === undefined || !existsSync(xray)) {
  const where = xray ?? 'in the cache of npm run conformance';
  process.stderr.write(
    `real-node: no Xray ${where}: run npm run conformance, or name one with --xray\n`,
  );
  process.exit(2);
}
process.stdout.write(`Xray: ${xray}\n`);
const folder = path.join('test', 'examples', 'agent');
const tests = readdirSync(path.join(root, folder))
  .filter((name) => name.endsWith('.xray.ts'))
  .map((name) => path.join(folder, name));
const child = spawn(process.execPath, [path.join(root, 'scripts', 'test.mjs'), ...tests], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, CORE_TEST_XRAY: path.resolve(xray) },
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.once('exit', (code) => process.exit(code ?? 1));

/** What --xray names, or the newest version in the cache of `npm run conformance`. */
function xrayOf(args) {
  const at = args.indexOf('--xray');
  if (at !== -1) return args[at + 1];
  const cache = process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache');
  const folder = path.join(cache, 'core', 'programs');
  if (!existsSync(folder)) return undefined;
  const versions = readdirSync(folder)
    .filter((name) => /^xray-\d+\.\d+\.\d+$/.test(name))
    .sort((left, right) => left.localeCompare(right, 'en', { numeric: true }));
  const newest = versions.at(-1);
  return newest === undefined ? undefined : path.join(folder, newest);
}
