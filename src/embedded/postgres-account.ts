import { execFile } from 'node:child_process';
import { chmodSync, readFileSync, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { CoreError } from '../errors.ts';

const run = promisify(execFile);

/** How to run Postgres, which refuses to run as root. */
export interface Account {
  /** What stands in front of the command, e.g. `unshare` with its flags; it replaces itself. */
  prefix: readonly string[];
  /** Set where the files belong to, and the program runs as, another user. */
  uid?: number;
  gid?: number;
}

const systemUser = 'postgres';

/**
 * Decides how to run Postgres. A plain user runs it as is. Root runs it in a user namespace in
 * which it is somebody else: the files stay root's, so that this works in folders which only root
 * may enter. Where namespaces are refused, a system user `postgres` runs it. A data directory that
 * already belongs to such a user keeps being run by that user.
 */
export async function chooseAccount(dataDir: string, postgresDir: string): Promise<Account> {
  if (process.getuid?.() !== 0) return { prefix: [] };
  const owner = statSync(postgresDir, { throwIfNoEntry: false });
  if (owner !== undefined && owner.uid !== 0) {
    letPass(dataDir);
    return { prefix: [], uid: owner.uid, gid: owner.gid };
  }
  const prefix = namespacePrefix();
  if (prefix !== undefined && (await succeeds([...prefix, 'true']))) return { prefix };
  const user = findUser(systemUser) ?? (await createUser());
  letPass(dataDir);
  // Where the files are root's from a run in a namespace, this hands them over for good.
  if (owner !== undefined) await run('chown', ['-R', `${user.uid}:${user.gid}`, postgresDir]);
  return { prefix: [], ...user };
}

/** Postgres looks its user up by id, so the id inside the namespace must be one that exists. */
function namespacePrefix(): string[] | undefined {
  if (process.platform !== 'linux') return undefined;
  const someone = users().find((user) => user.uid > 0);
  if (someone === undefined) return undefined;
  return ['unshare', '--user', `--map-user=${someone.uid}`, `--map-group=${someone.gid}`];
}

async function createUser(): Promise<{ uid: number; gid: number }> {
  let cause: unknown;
  try {
    await run('useradd', ['--system', '--user-group', '--shell', '/usr/sbin/nologin', systemUser]);
  } catch (thrown) {
    cause = thrown;
  }
  const user = findUser(systemUser);
  if (user !== undefined) return user;
  throw new CoreError(
    'EMBEDDED_SERVER_FAILED',
    'Postgres does not run as root, and here root may neither use a user namespace nor add a user "postgres". Run Core as another user, or set DATABASE_URL to a running Postgres',
    { cause },
  );
}

/** Lets another user pass through the data directory to its own folder, without listing it. */
function letPass(dataDir: string): void {
  chmodSync(dataDir, 0o711);
}

function findUser(name: string): { uid: number; gid: number } | undefined {
  const user = users().find((one) => one.name === name);
  return user === undefined ? undefined : { uid: user.uid, gid: user.gid };
}

function users(): { name: string; uid: number; gid: number }[] {
  return readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .map(([name, , uid, gid]) => ({ name: name ?? '', uid: Number(uid), gid: Number(gid) }))
    .filter((user) => user.name !== '' && user.uid >= 0 && user.gid >= 0);
}

async function succeeds(command: readonly string[]): Promise<boolean> {
  const [program, ...args] = command;
  if (program === undefined) return false;
  try {
    await run(program, args);
    return true;
  } catch {
    return false;
  }
}
