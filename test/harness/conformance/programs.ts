import { execFile } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

/** A program that the run starts: a proxy, or a client app's engine. */
export interface Program {
  name: 'xray' | 'sing-box' | 'mihomo';
  version: string;
  file: string;
}

/** What came of looking for a program, and of building it where it was missing. */
export type Obtained =
  | { kind: 'program'; program: Program }
  | { kind: 'no-go' }
  | { kind: 'not-served'; output: string };

/**
 * Versions of Xray by the version that the Go module proxy serves them as, oldest first. Xray's tags are no
 * versions of Go, so the proxy knows most of them by their commit only.
 */
export const xrayModules: Readonly<Record<string, string>> = {
  '25.12.8': 'v1.251208.0',
  '26.3.27': 'v1.260327.0',
  '26.4.17': 'v1.260327.1-0.20260417230405-b4650360d6a0',
  '26.4.25': 'v1.260327.1-0.20260425231635-b4f08981becb',
  '26.5.3': 'v1.260327.1-0.20260503115313-228f1e13aa22',
  '26.6.1': 'v1.260327.1-0.20260601021109-94ffd50060f1',
  '26.6.27': 'v1.260327.1-0.20260627131803-45cf2898ab12',
  '26.7.11': 'v1.260327.1-0.20260711155151-50231eaff98c',
  '26.7.28': 'v1.260327.1-0.20260728075948-5ca6f4b7d4dc',
};

/** The versions that a run without `--xray` takes, oldest first. */
export const xrayVersions = ['25.12.8', '26.3.27', '26.4.17', '26.7.11', '26.7.28'] as const;
export const newestXray = '26.7.28';
const singBoxVersion = '1.14.1';
const mihomoVersion = '1.19.26';

const run = promisify(execFile);
/** A build takes two minutes on two cores, and the modules have to be downloaded before it. */
const buildMsMax = 1_200_000;
const outputBytesMax = 16 * 1_048_576;
const outputCharsShown = 600;

/** Where built programs stay from one run to the next, as `NAME-VERSION`. */
export function programsFolder(): string {
  const cache = process.env['XDG_CACHE_HOME'] ?? path.join(os.homedir(), '.cache');
  return path.join(cache, 'core', 'programs');
}

/** Xray of a version that the module proxy serves, or a binary of one's own at a path. */
export async function obtainXray(given: string): Promise<Obtained> {
  if (given.includes(path.sep)) {
    const { stdout } = await run(given, ['version']);
    const version = /^Xray (\S+)/.exec(stdout)?.[1];
    if (version === undefined)
      throw new Error(`${given} does not say that it is an Xray: ${stdout}`);
    return { kind: 'program', program: { name: 'xray', version, file: path.resolve(given) } };
  }
  const module = xrayModules[given];
  if (module === undefined) {
    const known = Object.keys(xrayModules).join(', ');
    throw new Error(`Xray ${given} is not known: give one of ${known}, or the path of a binary`);
  }
  return obtain('xray', given, (folder) =>
    install(folder, [], `github.com/xtls/xray-core/main@${module}`, 'main'),
  );
}

export async function obtainClient(name: 'sing-box' | 'mihomo'): Promise<Obtained> {
  if (name === 'mihomo') return obtain('mihomo', mihomoVersion, buildMihomo);
  const tags = ['-tags', 'with_utls,with_quic,with_grpc,with_gvisor'];
  const place = `github.com/sagernet/sing-box/cmd/sing-box@v${singBoxVersion}`;
  return obtain('sing-box', singBoxVersion, (folder) => install(folder, tags, place, 'sing-box'));
}

/**
 * Builds the program if the cache has none. It is built under a temporary name and then renamed, so a run
 * that is cut off leaves no half program behind.
 */
async function obtain(
  name: Program['name'],
  version: string,
  build: (folder: string) => Promise<string>,
): Promise<Obtained> {
  const file = path.join(programsFolder(), `${name}-${version}`);
  if (existsSync(file)) return { kind: 'program', program: { name, version, file } };
  if (!(await hasGo())) return { kind: 'no-go' };
  mkdirSync(programsFolder(), { recursive: true });
  const folder = mkdtempSync(path.join(programsFolder(), '.building-'));
  try {
    process.stderr.write(`conformance: building ${name} ${version} (takes minutes, once)\n`);
    renameSync(await build(folder), file);
    return { kind: 'program', program: { name, version, file } };
  } catch (thrown) {
    const { stderr, message } = thrown as { stderr?: string; message: string };
    const said = stderr === undefined || stderr === '' ? message : stderr;
    return { kind: 'not-served', output: `${name} ${version}: ${said.slice(-outputCharsShown)}` };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function hasGo(): Promise<boolean> {
  return run('go', ['version']).then(
    () => true,
    () => false,
  );
}

/** Builds a package with `go install`, and returns the file. */
async function install(
  folder: string,
  tags: readonly string[],
  place: string,
  binary: string,
): Promise<string> {
  await go(['install', '-trimpath', ...tags, place], { GOBIN: folder });
  return path.join(folder, binary);
}

/**
 * mihomo replaces one of its modules by another, and `go install` refuses that. A build in a copy of its
 * folder does not, and checks the modules by mihomo's own go.sum.
 */
async function buildMihomo(folder: string): Promise<string> {
  const place = `github.com/metacubex/mihomo@v${mihomoVersion}`;
  const { stdout } = await go(['mod', 'download', '-json', place], {});
  const copy = path.join(folder, 'source');
  cpSync((JSON.parse(stdout) as { Dir: string }).Dir, copy, { recursive: true });
  // Go keeps its modules read-only, and the copy has to be removed afterwards.
  await run('chmod', ['-R', 'u+w', copy]);
  const file = path.join(folder, 'mihomo');
  await go(['build', '-trimpath', '-tags', 'with_gvisor', '-o', file, '.'], {}, copy);
  chmodSync(file, 0o755);
  return file;
}

function go(args: string[], environment: Record<string, string>, folder = os.tmpdir()) {
  return run('go', args, {
    cwd: folder,
    timeout: buildMsMax,
    maxBuffer: outputBytesMax,
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false', ...environment },
  });
}
