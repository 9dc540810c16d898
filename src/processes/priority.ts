import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import type { Logger } from '../log.ts';

/** Three programs yield, each of which may have the others' turns before it. */
const sessionTriesMax = 20;
const sessionPauseMs = 110;
const chrtMsMax = 5_000;

/**
 * Lets a process that has just been started yield to others: `niceness` more than this one does, up to
 * POSIX's 19. To be called before it has threads, which inherit it: a later change is of one thread
 * only. Where the system refuses, it runs as any other.
 */
export function setNiceness(pid: number, niceness: number): void {
  const most = os.constants.priority.PRIORITY_LOW;
  try {
    os.setPriority(pid, Math.min(os.getPriority() + niceness, most));
  } catch {
    // Not allowed here, or gone already, which its exit says.
  }
  setSessionNiceness(pid, Math.min(niceness, most), sessionTriesMax);
}

/**
 * Where Linux shares the processor out by session (`sched_autogroup_enabled`, on by default), a
 * process' niceness counts only against others of its own session, and each supervised program is alone
 * in its own. So its session is given the niceness, too. A child that begins another session, as
 * Postgres' do, is out of it. Where Core is not root the kernel takes one such change in 100 ms, on the
 * whole machine, and answers more with EAGAIN: they are tried again.
 *
 * Source: sched(7), "The autogroup feature".
 */
function setSessionNiceness(pid: number, niceness: number, tries: number): void {
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(niceness));
  } catch (error) {
    // Else there are no such groups here, it is not allowed, or the process is gone already.
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || tries === 1) return;
    setTimeout(() => setSessionNiceness(pid, niceness, tries - 1), sessionPauseMs).unref();
  }
}

/**
 * Puts the main thread of a process before all that have no real-time priority (SCHED_RR, the lowest of
 * them), by util-linux' chrt, since Node has no call for it. What it forks, and threads it starts later,
 * run as others do: a rewrite of Redis' file must not take a processor for itself. Linux leaves the
 * others a twentieth of each second in any case (`sched_rt_runtime_us`). Where there is no chrt, or it is
 * not allowed, the process runs as any other, and the log says so on debug.
 *
 * Source: sched(7), "Resetting scheduling policy for child processes", "Limiting the CPU usage".
 */
export function setRealTime(pid: number, name: string, log: Logger): void {
  const args = ['--reset-on-fork', '--rr', '--pid', '1', String(pid)];
  execFile('chrt', args, { timeout: chrtMsMax }, (error) => {
    if (error !== null)
      log.debug({ process: name, err: error }, `${name} has no real-time priority`);
  });
}
