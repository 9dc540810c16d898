import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import type { Logger } from '../log.ts';

/**
 * Which programs of one machine yield when processors are short. Nodes wait for api and Redis, so those
 * yield to nobody. The worker yields, because a load that waits gathers a larger segment. Postgres yields,
 * because it updates hundreds of thousands of counters at once. ClickHouse yields, because its merges take
 * all that they can get. On Linux, Postgres' own processes begin new sessions and may take as much as api:
 * see `setSessionNiceness`.
 */
export const niceness = { worker: 5, postgres: 5, clickhouse: 10 } as const;

/** The kernel allows one change per 100 ms and three programs compete, so retry. */
const sessionPauseMs = 110;
const sessionTriesMax = 20;
const chrtMsMax = 5_000;

/**
 * Makes a process yield to others when processors are short: its niceness becomes this process' own plus
 * `niceness`, up to POSIX's 19. Call it right after the start, because threads inherit the niceness and a
 * later change affects one thread only. If the system refuses, the process runs as any other.
 */
export function setNiceness(pid: number, niceness: number): void {
  const most = os.constants.priority.PRIORITY_LOW;
  try {
    os.setPriority(pid, Math.min(os.getPriority() + niceness, most));
  } catch {
    // The system refuses, or the process is gone. Its exit event reports that.
  }
  setSessionNiceness(pid, Math.min(niceness, most), sessionTriesMax);
}

/**
 * Gives the niceness to the session of a process, too. By default (`sched_autogroup_enabled`) Linux shares
 * processors out by session: the niceness of a process counts only within its session, and each supervised
 * program is alone in its own. A child that begins another session, as Postgres' children do, is not
 * covered. If Core is not root, the kernel takes one such change per 100 ms on the whole machine. It
 * answers EAGAIN to all others, and Core tries those again.
 *
 * Source: sched(7), "The autogroup feature".
 */
function setSessionNiceness(pid: number, niceness: number, tries: number): void {
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(niceness));
  } catch (error) {
    // After any other error a retry is of no use: this system has no such groups, it is not allowed, or
    // the process is gone.
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || tries === 1) return;
    setTimeout(() => setSessionNiceness(pid, niceness, tries - 1), sessionPauseMs).unref();
  }
}

/**
 * Runs the main thread of a process before all that have no real-time priority. It gets the lowest one of
 * SCHED_RR, by util-linux' chrt, since Node has no call for it. Its forks and the threads it starts later
 * run as others do: a rewrite of Redis' file must not take a processor for itself. Linux keeps a twentieth
 * of each second for the others in any case (`sched_rt_runtime_us`). Without chrt, or if it is not allowed,
 * the process runs as any other, and the log says so on debug.
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
