import { spawnSync } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { CoreError } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import type { ProgramSpec } from '../../src/processes/program.ts';
import { type Supervised, startTogether, supervise } from '../../src/processes/supervisor.ts';
import { projectRoot } from '../../src/root.ts';
import { until } from '../support/api.ts';
import { isAlive } from '../support/core-process.ts';

const fixture = path.join(projectRoot, 'test', 'fixtures', 'child.mjs');

function spec(args: string[], more: Partial<ProgramSpec> = {}): ProgramSpec {
  return {
    name: 'child',
    command: process.execPath,
    args: [fixture, ...args],
    ready: 'ipc',
    readyMsMax: 20_000,
    stopSignal: 'SIGTERM',
    stopMsMax: 20_000,
    failureCode: 'PROCESS_FAILED',
    ...more,
  };
}

/** A logger that can wait for a line by a part of its text. */
function listeningLog(): { log: Logger; lines: string[]; line(part: string): Promise<void> } {
  const lines: string[] = [];
  const heard = new EventEmitter();
  const log = pino(
    { level: 'info' },
    {
      write(json: string) {
        lines.push((JSON.parse(json) as { msg: string }).msg);
        heard.emit('line');
      },
    },
  );
  return {
    log,
    lines,
    async line(part) {
      while (!lines.some((one) => one.includes(part))) await once(heard, 'line');
    },
  };
}

async function started(t: Test, args: string[], more: Partial<ProgramSpec> = {}) {
  const heard = listeningLog();
  const child = await supervise(spec(args, more), heard.log);
  t.teardown(() => child.stop());
  return { child, ...heard };
}

function pidOf(child: Supervised): number {
  const pid = child.pid();
  if (pid === undefined) throw new Error('the child does not run');
  return pid;
}

async function failureOf(promise: Promise<unknown>): Promise<CoreError> {
  try {
    await promise;
  } catch (thrown) {
    if (thrown instanceof CoreError) return thrown;
    throw thrown;
  }
  throw new Error('it did not fail');
}

t.test('a program is started, and stopped by its signal', async (t) => {
  const { child } = await started(t, ['ready']);
  const pid = pidOf(child);
  t.ok(isAlive(pid));
  await Promise.all([child.stop(), child.stop()]);
  t.notOk(isAlive(pid));
  t.equal(child.pid(), undefined);
});

t.test('a program that dies is started again, and both are logged', async (t) => {
  const { child, line, lines } = await started(t, ['ready']);
  const pid = pidOf(child);
  process.kill(pid, 'SIGKILL');
  await line('child is back');
  t.not(pidOf(child), pid);
  t.match(lines[0], 'child was killed by SIGKILL; starting it again in 250 ms');
});

t.test('a program has the niceness of its spec, also after a restart', async (t) => {
  const yielding = Math.min(os.getPriority() + 3, 19);
  const session = sessionNiceness('self') === undefined ? undefined : 3;
  await startedAgain(t, { niceness: 3 }, async (pid) => {
    t.equal(os.getPriority(pid), yielding);
    await until(
      async () => sessionNiceness(pid),
      (found) => found === session,
    );
  });
});

t.test('a program gets a real-time priority if the system allows it', async (t) => {
  // chrt itself shows whether the system allows it.
  const { status } = spawnSync('chrt', ['--rr', '1', 'true']);
  const policy = status === 0 ? roundRobin : 0;
  await startedAgain(t, { isRealTime: true }, async (pid) => {
    await until(
      async () => policyOf(pid),
      (found) => found === policy,
    );
  });
});

/** Checks a child of this spec, kills it, and checks the child that replaces it. */
async function startedAgain(
  t: Test,
  more: Partial<ProgramSpec>,
  check: (pid: number) => Promise<void>,
): Promise<void> {
  const { child, line } = await started(t, ['ready'], more);
  await check(pidOf(child));
  process.kill(pidOf(child), 'SIGKILL');
  await line('child is back');
  await check(pidOf(child));
}

/** SCHED_RR; the flag SCHED_RESET_ON_FORK is not part of it here. */
const roundRobin = 2;

/** The scheduling policy of a process' main thread: field 41 of its stat, counted without the first two. */
function policyOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[41 - 3]);
}

/** Undefined if the system does not share processors out by session. */
function sessionNiceness(pid: number | 'self'): number | undefined {
  const file = `/proc/${pid}/autogroup`;
  const said = existsSync(file) ? /nice (-?\d+)/.exec(readFileSync(file, 'utf8'))?.[1] : undefined;
  return said === undefined ? undefined : Number(said);
}

t.test('the pause doubles until the program is back', async (t) => {
  const file = path.join(t.testdir(), 'starts');
  const { child, line, lines } = await started(t, ['once', file]);
  process.kill(pidOf(child), 'SIGKILL');
  await line('child is back');
  t.equal(readFileSync(file, 'utf8'), 'start\n'.repeat(4));
  const pauses = lines.map((one) => /again in (\d+) ms/.exec(one)?.[1]).filter(Boolean);
  t.same(pauses, ['250', '500', '1000']);
});

t.test('a stop during the pause ends the supervision', async (t) => {
  const file = path.join(t.testdir(), 'starts');
  const { child, line } = await started(t, ['once', file]);
  process.kill(pidOf(child), 'SIGKILL');
  await line('again in 500 ms');
  await child.stop();
  t.equal(child.pid(), undefined);
  t.equal(readFileSync(file, 'utf8'), 'start\n'.repeat(2));
});

t.test('a program that ignores its stop signal is killed', async (t) => {
  const { child, lines } = await started(t, ['deaf'], { stopMsMax: 100 });
  const pid = pidOf(child);
  await child.stop();
  t.notOk(isAlive(pid));
  t.match(lines.at(-1), 'child did not stop in 100 ms and was killed');
});

t.test('a first start that fails says why, and leaves no process', async (t) => {
  const { log } = listeningLog();
  const logFile = path.join(t.testdir(), 'logs', 'child.log');
  const died = await failureOf(supervise(spec(['die', 'no room'], { logFile }), log));
  t.equal(died.code, 'PROCESS_FAILED');
  t.equal(died.message, 'child exited with code 3 before it was ready: FATAL: no room');

  const refused = await failureOf(supervise(spec(['refuse']), log));
  t.equal(refused.code, 'REDIS_NOT_DURABLE');
  t.equal(refused.message, 'appendonly is no');

  let pid = 0;
  const late = await failureOf(
    supervise(
      spec(['silent'], {
        readyMsMax: 300,
        onSpawn: (id) => {
          pid = id;
        },
      }),
      log,
    ),
  );
  t.equal(late.message, 'child was not ready after 0.3 s');
  t.notOk(isAlive(pid));

  const absent = await failureOf(supervise(spec([], { command: '/no/such/program' }), log));
  t.match(absent.message, /child could not be executed .*ENOENT/);
});

t.test('a start can be aborted', async (t) => {
  const { log } = listeningLog();
  const giveUp = new AbortController();
  let pid = 0;
  const onSpawn = (id: number): void => {
    pid = id;
    giveUp.abort();
  };
  await t.rejects(supervise(spec(['silent'], { onSpawn }), log, giveUp.signal));
  t.notOk(isAlive(pid));
});

t.test('several programs start together: all of them run, or none', async (t) => {
  const { log } = listeningLog();
  const never = new AbortController().signal;
  const pids: number[] = [];
  const onSpawn = (pid: number): void => void pids.push(pid);
  const start = (one: ProgramSpec) => (signal: AbortSignal) => supervise(one, log, signal);
  const failed = await failureOf(
    startTogether(
      [
        start(spec(['ready'], { onSpawn })),
        start(spec(['silent'], { onSpawn })),
        start(spec(['refuse'], { onSpawn })),
      ],
      never,
    ),
  );
  t.equal(failed.code, 'REDIS_NOT_DURABLE');
  t.equal(pids.length, 3);
  t.notOk(pids.some(isAlive));

  const running = await startTogether([start(spec(['ready'])), start(spec(['ready']))], never);
  t.equal(running.length, 2);
  await Promise.all(running.map((one) => one.stop()));
});

t.test('a log file that is too long is renamed at the next start', async (t) => {
  const folder = t.testdir();
  const logFile = path.join(folder, 'child.log');
  writeFileSync(logFile, 'x'.repeat(10_485_761));
  const { child } = await started(t, ['ready'], { logFile });
  await child.stop();
  t.equal(statSync(`${logFile}.1`).size, 10_485_761);
  t.equal(statSync(logFile).size, 0);
});
