import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { readProcessStat } from '../../src/linux-processes.ts';
import { projectRoot } from '../../src/root.ts';
import { settingsOnFreePorts, startCore, startProgram } from '../support/core-process.ts';

const program = path.join(projectRoot, 'scripts', 'core.mjs');
/** Makes what a container is as far as processes go. Not every user may. */
const container = ['--pid', '--fork', '--mount-proc', '--kill-child'];
const mayIsolate = spawnSync('unshare', [...container, 'true']).status === 0;

async function freshSettings(t: Test): Promise<Record<string, string>> {
  const settings = await settingsOnFreePorts(path.join(t.testdir({}), 'data'));
  return { ...settings, CORE_LOG_LEVEL: 'debug' };
}

/** Starts Core as the child of a program that never waits for its children, so they stay as zombies. */
const parent = ['sh', '-c', '"$1" "$2" up & exec sleep 600', 'sh', process.execPath, program];

t.test('Core starts at once after another one was killed and stays as a zombie', async (t) => {
  const settings = await freshSettings(t);
  const first = startProgram(t, parent[0] ?? '', parent.slice(1), settings);
  await first.line(/^core ready/);
  const pid = Number(/"pid":(\d+)/.exec(await first.line(/redis is ready/))?.[1]);
  const children = await Promise.all(
    ['postgres', 'redis', 'clickhouse', 'api', 'worker'].map((name) => first.child(name)),
  );
  for (const one of [pid, ...children]) process.kill(one, 'SIGKILL');

  const second = startCore(t, ['up'], settings);
  await second.line(/^core ready/);
  t.equal(readProcessStat(pid)?.state, 'dead', 'the first one is still a zombie');
  second.signal('SIGTERM');
  t.same(await second.exited, { code: 0, signal: null });
});

t.test(
  'the same in a container if process 1 never waits for its children',
  { skip: mayIsolate ? false : 'this user may not make a namespace of processes' },
  async (t) => {
    const settings = await freshSettings(t);
    const first = startProgram(t, 'unshare', [...container, ...parent], settings);
    await first.line(/^core ready/);
    const sleep = onlyChild(first.pid);
    const inside = ['--target', String(sleep), '--pid', '--mount'];
    try {
      // This kills everything but process 1 and this shell, and all of it stays as zombies.
      spawnSync('nsenter', [...inside, 'sh', '-c', 'kill -9 -1']);
      const again = [...inside, process.execPath, program, 'up'];
      const second = startProgram(t, 'nsenter', again, settings);
      await second.line(/^core ready/);
      const { stdout } = spawnSync('nsenter', [...inside, 'ps', '-e', '-o', 'stat=,comm='], {
        encoding: 'utf8',
      });
      for (const name of ['node', 'postgres', 'redis-server']) {
        t.match(stdout, new RegExp(`^Z.*${name}`, 'm'), `a ${name} is still a zombie`);
      }
    } finally {
      // When process 1 ends, the kernel ends everything in its namespace.
      process.kill(sleep, 'SIGKILL');
    }
  },
);

function onlyChild(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'));
}
