import { execFile } from 'node:child_process';
import { chmodSync, chownSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CoreError } from '../../errors.ts';
import { withoutSecrets } from '../../processes/without-secrets.ts';
import { findProgram } from '../find-program.ts';

const run = promisify(execFile);

/** Who runs Postgres, and how. */
export interface SystemAccount {
  /**
   * Goes before a command that works in `folder`. Each program in it replaces itself by the next one, so
   * the process id stays the same.
   */
  prefixFor(folder: string): string[];
  /** Set if this process itself has to change the user, because no program of the prefix does. */
  uid?: number;
  gid?: number;
  /** Owner of the files; undefined if it is this process' own user. */
  owner: User | undefined;
}

interface User {
  uid: number;
  gid: number;
}

/** A name of Core's own, so that the Postgres of a distribution has another user. */
const userName = 'core-postgres';
/** An earlier Core ran Postgres as this user, if it could not make a user namespace. */
const formerUserName = 'postgres';
const addTriesMax = 20;
const addPauseMs = 250;
/** Exit codes of useradd if it cannot change the list of users or groups, e.g. because it is locked. */
const addBusyCodes: readonly unknown[] = [1, 10];
/** Enough for some thousand files on a slow disk. */
const handOverMsMax = 120_000;

/**
 * Runs as root, in a mount namespace of its own, before the command: `NATIVE FOLDER CLOSED… -- COMMAND`.
 * An empty file system replaces each closed folder. It contains only what the command needs, under the usual
 * paths: the programs, and the folder it works in. No other process sees this.
 */
const enterScript = `set -e
umask 022
native=$1 folder=$2
shift 2
exec 3<"$native" 4<"$folder"
while [ "$1" != -- ]; do
  mount -t tmpfs -o mode=0711,size=1m core "$1"
  shift
done
shift
mkdir -p "$native" "$folder"
mount --no-canonicalize --bind /proc/self/fd/3 "$native"
mount --no-canonicalize --bind /proc/self/fd/4 "$folder"
cd "$folder"
exec "$@" 3<&- 4<&-`;

/**
 * Decides how to run Postgres. A plain user runs it directly. If Core is root, a system user of Core's own
 * runs it. That user owns Postgres' folder and nothing else, so SQL cannot read root's files. If only root
 * may enter a folder above (a checkout in /root, the data directory itself), the user gets there in a mount
 * namespace, and the mode of that folder stays.
 *
 * If another plain user ran Core on this folder before, it stays that user's.
 *
 * @param folder the files of Postgres, which exist
 * @throws CoreError EMBEDDED_SERVER_FAILED with what to do, if no way works here.
 */
export async function chooseAccount(options: {
  dataDir: string;
  folder: string;
  /** The folder of Postgres' programs, which lie in its `bin`. */
  native: string;
}): Promise<SystemAccount> {
  if (process.getuid?.() !== 0) return { prefixFor: () => [...withoutSecrets], owner: undefined };
  const { dataDir, folder, native } = options;
  const user = await chooseUser(folder);
  // A package that was extracted under a strict umask is closed to everybody but root.
  if ((statSync(native).mode & 0o005) !== 0o005) await run('chmod', ['-R', 'o+rX', native]);
  await handOver(folder, user);
  const closed = [...new Set([native, folder].flatMap((one) => closedAbove(one, user)))];
  const candidates = candidatesFor(user, native, closed);
  let cause: unknown;
  for (const { needsPassage, account } of candidates) {
    // Only the data directory may get another mode, because it is Core's own.
    if (needsPassage && !closed.every((one) => one === dataDir)) continue;
    if (needsPassage && closed.length > 0) letPass(dataDir);
    try {
      await tryOut(account, folder, native);
      return account;
    } catch (thrown) {
      cause ??= thrown;
    }
  }
  throw unreachable(closed, native, cause);
}

/** The ways to become the user, best first. */
function candidatesFor(
  user: User,
  native: string,
  closed: readonly string[],
): { needsPassage: boolean; account: SystemAccount }[] {
  const become = [
    'setpriv',
    ...[`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups'],
    ...['--inh-caps=-all', '--no-new-privs', '--'],
  ];
  const enter = (folder: string): string[] =>
    closed.length === 0
      ? []
      : ['unshare', '--mount', 'sh', '-c', enterScript, 'sh', native, folder, ...closed, '--'];
  return [
    {
      needsPassage: false,
      account: {
        prefixFor: (folder) => [...withoutSecrets, ...enter(folder), ...become],
        owner: user,
      },
    },
    {
      needsPassage: true,
      account: { prefixFor: () => [...withoutSecrets, ...become], owner: user },
    },
    {
      needsPassage: true,
      account: { prefixFor: () => [...withoutSecrets], ...user, owner: user },
    },
  ];
}

async function tryOut(account: SystemAccount, folder: string, native: string): Promise<void> {
  const program = path.join(native, 'bin', 'postgres');
  const script = 'cd "$1" && ls >/dev/null && exec "$2" --version';
  await runAs(account, folder, ['sh', '-c', script, 'sh', folder, program]);
}

/**
 * Runs a command to its end as the account, in `folder`, with `input` on its stdin.
 * @returns what it wrote to stdout.
 */
export async function runAs(
  account: SystemAccount,
  folder: string,
  command: readonly string[],
  options: { input?: string; signal?: AbortSignal; timeout?: number } = {},
): Promise<string> {
  const { input, ...others } = options;
  const [program = '', ...args] = [...account.prefixFor(folder), ...command];
  const running = run(program, args, {
    cwd: folder,
    ...(account.uid === undefined ? {} : { uid: account.uid }),
    ...(account.gid === undefined ? {} : { gid: account.gid }),
    ...others,
  });
  // A command that ends early does not read the rest. Its exit code says why.
  running.child.stdin?.on('error', () => undefined);
  running.child.stdin?.end(input ?? '');
  return (await running).stdout;
}

async function chooseUser(folder: string): Promise<User> {
  const { uid, gid } = statSync(folder);
  if (uid !== 0 && uid !== findUser(formerUserName)?.uid) return { uid, gid };
  return findUser(userName) ?? (await createUser());
}

/**
 * Gives the files to the user, but no file that a link points to. The folder itself comes last. If the user
 * does not own it yet, an attempt was cut off half-way, and this one repeats it.
 */
async function handOver(folder: string, user: User): Promise<void> {
  if (statSync(folder).uid === user.uid) return;
  const files = readdirSync(folder).map((name) => path.join(folder, name));
  const to = `${user.uid}:${user.gid}`;
  if (files.length > 0) await run('chown', ['-hR', to, ...files], { timeout: handOverMsMax });
  chownSync(folder, user.uid, user.gid);
}

/** The topmost folder above `file` that the user may not pass through, if there is one. */
function closedAbove(file: string, user: User): string[] {
  let folder = path.parse(file).root;
  for (const part of path.relative(folder, path.dirname(file)).split(path.sep)) {
    folder = path.join(folder, part);
    const { mode, uid, gid } = statSync(folder);
    const shift = uid === user.uid ? 6 : gid === user.gid ? 3 : 0;
    if (((mode >> shift) & 1) === 0) return [folder];
  }
  return [];
}

/** Lets another user pass through the data directory to its own folder, without listing it. */
function letPass(dataDir: string): void {
  chmodSync(dataDir, statSync(dataDir).mode | 0o011);
}

/** Two Cores may start at once. useradd refuses one of them while the other changes the list of users. */
async function createUser(): Promise<User> {
  const useradd = await findProgram('useradd');
  let cause: unknown;
  for (let tries = 0; tries < addTriesMax; tries += 1) {
    try {
      await addUser(useradd);
    } catch (thrown) {
      cause = thrown;
    }
    const user = findUser(userName);
    if (user !== undefined) return user;
    const isBusy = addBusyCodes.includes((cause as { code?: unknown } | undefined)?.code);
    if (useradd === undefined || !isBusy) break;
    await delay(addPauseMs);
  }
  throw new CoreError(
    'EMBEDDED_SERVER_FAILED',
    `Postgres does not run as root, and the system user ${userName} cannot be added. Add it (useradd --system ${userName}), run Core as another user, or set DATABASE_URL to a running Postgres`,
    { cause },
  );
}

/** Uses useradd, or BusyBox' adduser on systems without it (Alpine). */
async function addUser(useradd: string | undefined): Promise<void> {
  const home = '/nonexistent';
  const shell = '/sbin/nologin';
  if (useradd !== undefined) {
    const args = ['--system', '--user-group', '--no-create-home', '--home-dir', home];
    await run(useradd, [...args, '--shell', shell, userName]);
    return;
  }
  await run('addgroup', ['-S', userName]).catch(() => undefined);
  await run('adduser', ['-S', '-D', '-H', '-h', home, '-s', shell, '-G', userName, userName]);
}

function unreachable(closed: readonly string[], native: string, cause: unknown): CoreError {
  const why =
    closed.length === 0
      ? `cannot run the programs in ${native}`
      : `cannot pass through ${closed.join(' and ')}, and no mount namespace can be made here`;
  return new CoreError(
    'EMBEDDED_SERVER_FAILED',
    `Core runs as root, so Postgres runs as the user ${userName}, who ${why}. Move Core and CORE_DATA_DIR to folders that everybody may pass through, run Core as another user, or set DATABASE_URL to a running Postgres`,
    { cause },
  );
}

function findUser(name: string): User | undefined {
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [found, , uid, gid] = line.split(':');
    if (found === name) return { uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}
