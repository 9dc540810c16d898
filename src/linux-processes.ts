import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readIfThere } from './durable-file.ts';

/** What Linux tells about processes in /proc. Other systems have no such folder. */
interface ProcessStat {
  /**
   * `running`; `ending` while the kernel takes the process down, when it may still hold files and ports;
   * `dead` once it is a zombie. A zombie holds nothing and waits for its parent to ask how it ended. A
   * parent that never asks, such as a `sleep` as process 1 of a container, keeps its zombies for ever.
   */
  state: 'running' | 'ending' | 'dead';
  /** Clock ticks from the start of the machine to that of the process. */
  startTicks: string;
}

/** PF_EXITING of the kernel's include/linux/sched.h: the process has begun to end. */
const exitingFlag = 4;

/** Undefined if there is no such process, or no /proc. */
export function readProcessStat(pid: number): ProcessStat | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The second field is the name in parentheses, which may itself hold blanks and parentheses. So the
  // fields are counted from the end of the name: proc_pid_stat(5) numbers the first of them 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [letter = '', flags = 0, threads = 0] = [fields[0], Number(fields[6]), Number(fields[17])];
  const isZombie = letter === 'Z' || letter === 'X';
  // The main thread may be a zombie while other threads still end; they share its files.
  const isDead = isZombie && threads <= 1;
  const isEnding = isZombie || (flags & exitingFlag) !== 0;
  return {
    state: isDead ? 'dead' : isEnding ? 'ending' : 'running',
    startTicks: fields[19] ?? '',
  };
}

/** Identifies a process together with its pid: pids come again, and ticks come again after a reboot. */
interface ProcessIdentity extends ProcessStat {
  /** A UUID of this boot of the machine. */
  bootId: string;
}

/** Undefined if there is no such process, or no /proc. */
export function readProcessIdentity(pid: number): ProcessIdentity | undefined {
  const stat = readProcessStat(pid);
  const bootId = readIfThere('/proc/sys/kernel/random/boot_id')?.trim();
  return stat === undefined || bootId === undefined ? undefined : { ...stat, bootId };
}

/**
 * Other processes that have `folder` as their working directory, with their arguments. Zombies are not
 * among them.
 */
export function processesIn(folder: string): { pid: number; argv: string[] }[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isSafeInteger(pid) && pid !== process.pid)
    .flatMap((pid) => {
      const argv = argvIn(folder, pid);
      return argv === undefined ? [] : [{ pid, argv }];
    });
}

function argvIn(folder: string, pid: number): string[] | undefined {
  try {
    if (readlinkSync(`/proc/${pid}/cwd`) !== folder) return undefined;
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    // Another user's process, or one that ended in the meantime. A process of ours is neither: it runs as
    // this user, or this user is root and may read all.
    return undefined;
  }
}
