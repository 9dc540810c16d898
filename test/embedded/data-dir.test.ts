import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { claimDataDir } from '../../src/embedded/data-dir.ts';
import { projectRoot } from '../../src/root.ts';
import { makeSecrets, readSecrets } from '../../src/secrets.ts';

function refused(t: Test, dataDir: string, message: RegExp): void {
  t.throws(() => claimDataDir(dataDir), { code: 'DATA_DIR_UNUSABLE', message }, String(message));
}

t.test('a data directory that cannot be made or written is one clear line', async (t) => {
  const folder = t.testdir({ file: 'text', nested: { logs: 'a file', data: { redis: 'a file' } } });
  const within = (...parts: string[]): string => path.join(folder, ...parts);
  refused(t, within('file'), /data directory .*file cannot be used: a file has its name \(EEXIST/);
  refused(t, within('file', 'data'), /a part of its path is a file \(ENOTDIR.*CORE_DATA_DIR/);
  refused(t, within('nested'), /a file has its name \(EEXIST, .*logs\)/);
  refused(t, within('nested', 'data'), /a part of its path is a file \(ENOTDIR, .*redis/);
  refused(t, within('x'.repeat(300)), /its path is too long \(ENAMETOOLONG/);
  symlinkSync(within('circle'), within('circle'));
  refused(t, within('circle'), /symbolic links go in a circle \(ELOOP/);
  // No folder can be made in /proc, and there Node's `recursive` never returns.
  if (process.platform === 'linux') {
    refused(t, '/proc/core/data', /a folder of its path is missing and cannot be made \(ENOENT/);
  }
});

t.test(
  'a claim makes the lock and the folder of logs, and its release removes the lock',
  async (t) => {
    const dataDir = path.join(t.testdir({}), 'missing', 'data');
    const claim = claimDataDir(dataDir);
    t.same(readdirSync(dataDir).sort(), ['core.lock', 'logs']);
    t.throws(() => claimDataDir(dataDir), { code: 'DATA_DIR_IN_USE' });
    claim.release();
    t.same(readdirSync(dataDir), ['logs']);
  },
);

t.test('others lose the right to write to the data directory', async (t) => {
  const dataDir = path.join(t.testdir({ data: {} }), 'data');
  for (const mode of [0o777, 0o1777, 0o770]) {
    chmodSync(dataDir, mode);
    claimDataDir(dataDir).release();
    t.equal(statSync(dataDir).mode & 0o7777, mode & 0o7755, 'the mode changes for writers only');
  }
});

t.test(
  'a data directory or a file of secrets that another user made is refused',
  { skip: process.getuid?.() === 0 ? false : 'only root can be another' },
  async (t) => {
    const nobody = 65_534;
    const folder = t.testdir({});
    const dataDir = path.join(folder, 'data');
    // The user nobody makes it before Core does, with passwords that nobody knows.
    chmodSync(folder, 0o777);
    const secrets = JSON.stringify(makeSecrets(folder));
    const program = `mkdir -m 777 "$0" && printf %s "$1" > "$0/secrets.json"`;
    const made = spawnSync('sh', ['-c', program, dataDir, secrets], { uid: nobody, gid: nobody });
    t.equal(made.status, 0, String(made.stderr));
    refused(t, dataDir, /cannot be used: it belongs to another user \(65534\).*CORE_DATA_DIR/);
    t.same(readdirSync(dataDir), ['secrets.json'], 'nothing was written there');
    chownSync(dataDir, 0, 0);
    claimDataDir(dataDir).release();
    const unusable = { code: 'SECRETS_UNUSABLE', message: /belongs to another user \(65534\)/ };
    t.throws(() => makeSecrets(dataDir), unusable);
    t.throws(() => readSecrets(dataDir), unusable, 'a command refuses them, too');
    rmSync(path.join(dataDir, 'secrets.json'));
    t.ok(makeSecrets(dataDir).redis, 'with the file away there are new ones');
  },
);

const mountsOwn = spawnSync('unshare', ['--mount', 'true']).status === 0;

t.test(
  'core up on a full or read-only disk',
  { skip: mountsOwn ? false : 'this user may not mount' },
  async (t) => {
    const dataDir = path.join(t.testdir({}), 'data');
    mkdirSync(dataDir);
    writeFileSync(path.join(dataDir, 'kept'), 'x');
    for (const [mount, message] of [
      ['mount -t tmpfs -o size=32k none "$0"', /its disk is full \(ENOSPC/],
      ['mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"', /read-only \(EROFS/],
    ] as const) {
      const core = spawnSync(
        'unshare',
        [
          ...['--mount', 'sh', '-c', `${mount} && exec "$1" "$2" up`, dataDir, process.execPath],
          path.join(projectRoot, 'scripts', 'core.mjs'),
        ],
        { encoding: 'utf8', env: { ...process.env, CORE_DATA_DIR: dataDir }, timeout: 60_000 },
      );
      t.equal(core.status, 1);
      t.equal(core.stderr.trim().split('\n').length, 1, core.stderr);
      t.match(core.stderr, message);
      t.match(core.stderr, dataDir);
    }
  },
);
