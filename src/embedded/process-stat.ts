import { readIfThere } from '../durable-file.ts';

/** What /proc/<pid>/stat says of a process. */
export interface ProcessStat {
  /**
   * `running`; `ending` while the kernel takes it down and it may still hold files and ports; `dead`
   * once it is a zombie, which holds nothing and only waits for its parent to ask how it ended. A
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
  // fields are counted from behind it: proc_pid_stat(5) numbers the first of them 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [letter = '', flags = 0, threads = 0] = [fields[0], Number(fields[6]), Number(fields[17])];
  const isZombie = letter === 'Z' || letter === 'X';
  // The main thread may be a zombie while others still end; they share its files.
  const isDead = isZombie && threads <= 1;
  const isEnding = isZombie || (flags & exitingFlag) !== 0;
  return {
    state: isDead ? 'dead' : isEnding ? 'ending' : 'running',
    startTicks: fields[19] ?? '',
  };
}
