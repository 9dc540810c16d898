import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import t, { type Test } from 'tap';
import { niceness } from '../../../src/processes/priority.ts';
import { projectRoot } from '../../../src/root.ts';
import {
  type CoreProcess,
  isAlive,
  settingsOnFreePorts,
  startProgram,
} from '../../support/core-process.ts';

// Which user runs the embedded Postgres. Only root can become another user, so tests that need one are
// skipped for everybody else.

const skip = process.getuid?.() === 0 ? false : 'only root runs Postgres as another user';
const skipMounts = skip || (runs('unshare', '--mount', 'true') ? false : 'no right to mount here');
const program = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
/** Takes the right to mount away from root, as most containers do. */
const withoutMounts = ['setpriv', '--bounding-set=-sys_admin'];
const nobody = 65_534;
const becomeNobody = ['setpriv', `--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups'];
const skipNobody =
  skip ||
  (runs(...becomeNobody, 'test', '-r', program) ? false : 'the checkout is closed to nobody');

function runs(...[command = '', ...args]: string[]): boolean {
  return spawnSync(command, args).status === 0;
}

/** A data directory below a folder that only root may enter. tap would remove a testdir too early. */
function freshPlace(t: Test): { above: string; dataDir: string } {
  const above = mkdtempSync(path.join(os.tmpdir(), 'core-account-'));
  t.teardown(() => rmSync(above, { recursive: true, force: true }));
  const dataDir = path.join(above, 'data');
  mkdirSync(dataDir, { mode: 0o700 });
  return { above, dataDir };
}

async function startIn(
  t: Test,
  dataDir: string,
  prefix: readonly string[] = [],
): Promise<CoreProcess> {
  const [command = '', ...args] = [...prefix, process.execPath, program, 'up'];
  const settings = await settingsOnFreePorts(dataDir);
  return startProgram(t, command, args, { ...settings, CORE_LOG_LEVEL: 'debug' });
}

const modeOf = (folder: string): string => (statSync(folder).mode & 0o777).toString(8);

/** The user of Postgres' main process, by the kernel. */
async function checkPlainUser(t: Test, core: CoreProcess, dataDir: string): Promise<number> {
  const pid = await core.child('postgres');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const ids = /^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)$/m.exec(status)?.slice(1) ?? [];
  const { uid } = statSync(path.join(dataDir, 'postgres'));
  t.not(uid, 0);
  t.strictSame(
    new Set(ids),
    new Set([String(uid)]),
    'real, effective and saved user are the owner of the files',
  );
  t.equal(os.getPriority(pid), Math.min(os.getPriority() + niceness.postgres, 19), 'it yields');
  t.match(status, /^CapEff:\s+0+$/m);
  t.match(status, /^CapPrm:\s+0+$/m);
  t.match(status, /^NoNewPrivs:\s+1$/m);
  t.match(status, /^Groups:\s*$/m, 'none of root’s groups');
  return pid;
}

t.test(
  'below a folder that only root may enter, no mode changes',
  { skip: skipMounts },
  async (t) => {
    const { above, dataDir } = freshPlace(t);
    const first = await startIn(t, dataDir);
    const pid = await checkPlainUser(t, first, dataDir);
    t.equal(modeOf(above), '700');
    t.equal(modeOf(dataDir), '700');

    await t.test(
      'after kill -9 of Core the next start finds the server and stops it',
      async (t) => {
        first.signal('SIGKILL');
        await first.exited;
        t.ok(isAlive(pid), 'it runs on');
        const second = await startIn(t, dataDir);
        await second.line(/"msg":"postgres of a former Core still runs; stopping it first"/);
        await checkPlainUser(t, second, dataDir);
        t.notOk(isAlive(pid));
        second.signal('SIGTERM');
        t.equal((await second.exited).code, 0);
      },
    );
  },
);

t.test('without a mount namespace, Core makes the data directory passable', { skip }, async (t) => {
  const { above, dataDir } = freshPlace(t);
  chmodSync(above, 0o755);
  const core = await startIn(t, dataDir, withoutMounts);
  await checkPlainUser(t, core, dataDir);
  t.equal(modeOf(dataDir), '711');
  core.signal('SIGTERM');
  t.equal((await core.exited).code, 0);
});

t.test(
  'without one and with a closed folder above, one line says what to do',
  { skip },
  async (t) => {
    const { above, dataDir } = freshPlace(t);
    const core = await startIn(t, dataDir, withoutMounts);
    t.equal((await core.exited).code, 1);
    const [said = '', ...more] = core.stderr.filter((line) => line.startsWith('core: '));
    t.strictSame(more, []);
    t.match(said, `core-postgres, who cannot pass through ${above}, and no mount namespace`);
    t.match(said, /Move Core and CORE_DATA_DIR to folders .* or set DATABASE_URL/);
    t.equal(modeOf(above), '700');
    t.equal(modeOf(dataDir), '700');
  },
);

t.test(
  'Core adds the system user, or says in one line that it cannot',
  { skip: skipMounts },
  async (t) => {
    const { above, dataDir } = freshPlace(t);
    // Only this Core sees a copy of the system's list of users, without the user of Postgres.
    const etc = path.join(above, 'etc');
    const script = `set -e
    cp -a /etc ${etc}
    for file in passwd group shadow gshadow; do sed -i '/^core-postgres:/d' ${etc}/$file; done
    mount --bind ${etc} /etc`;
    const isolated = (more: string): string[] => [
      ...['unshare', '--mount', 'sh', '-c', `${script}\n${more}\nexec "$@"`, 'sh'],
    ];
    const first = await startIn(t, dataDir, isolated('mount --bind /dev/null /usr/sbin/useradd'));
    t.equal((await first.exited).code, 1);
    t.match(
      first.stderr.filter((line) => line.startsWith('core: ')),
      [/system user core-postgres cannot be added. Add it .* or set DATABASE_URL/],
    );
    rmSync(etc, { recursive: true });
    const second = await startIn(t, dataDir, isolated(''));
    await checkPlainUser(t, second, dataDir);
    const { uid, gid } = statSync(path.join(dataDir, 'postgres'));
    const users = readFileSync(path.join(etc, 'passwd'), 'utf8');
    t.match(users, new RegExp(`^core-postgres:x:${uid}:${gid}:.*:/nonexistent:.*nologin$`, 'm'));
    second.signal('SIGTERM');
    t.equal((await second.exited).code, 0);
  },
);

t.test('a plain user runs Postgres as that user', { skip: skipNobody }, async (t) => {
  const { above, dataDir } = freshPlace(t);
  chmodSync(above, 0o755);
  chownSync(dataDir, nobody, nobody);
  const core = await startIn(t, dataDir, becomeNobody);
  const pid = await core.child('postgres');
  t.equal(statSync(`/proc/${pid}`).uid, nobody);
  t.equal(statSync(path.join(dataDir, 'postgres')).uid, nobody);
  core.signal('SIGTERM');
  t.equal((await core.exited).code, 0);
});
