import { existsSync, readdirSync, readFileSync } from 'node:fs';

/**
 * Process ids by name. A name stands for its process and all descendants. The second process of a kind has
 * a number after its name: `api`, `api 2`.
 */
export type ProcessRoots = Record<string, number>;

/** The kinds of Core's processes. The sender is not one of them. */
export const coreProcesses = ['api', 'worker', 'redis', 'postgres', 'clickhouse'];

/** Clock ticks a second in /proc/<pid>/stat: USER_HZ, which is 100 on today's Linux. */
const ticksPerSecond = 100;
const sampleEveryMs = 500;

interface Stat {
  pid: number;
  parent: number;
  /** CPU of the process and of its children that have ended, in ticks. */
  ticks: number;
}

/** What the processes did between `start` and `stop`. */
export interface ProcessUse {
  seconds: number;
  /** CPU seconds by kind, of all processes of it. */
  cpuSeconds: Record<string, number>;
  /** By kind: the largest resident memory that one process had, in bytes. Shared pages count once. */
  residentBytesMax: Record<string, number>;
}

/** CPU of all processes of these kinds, in % of a core. */
export function coreShare({ cpuSeconds, seconds }: ProcessUse, kinds: readonly string[]): number {
  return (kinds.reduce((sum, kind) => sum + (cpuSeconds[kind] ?? 0), 0) / seconds) * 100;
}

interface ProcessSampler {
  /** Begins anew: forgets all earlier samples. */
  start(): void;
  stop(): ProcessUse;
}

/** True if the system has /proc. Without it all figures are zero. */
export function tellsProcessUse(): boolean {
  return existsSync('/proc/self/stat');
}

/** Measures CPU and memory of processes that run on this machine, twice a second. */
export function createProcessSampler(roots: () => ProcessRoots): ProcessSampler {
  let timer: NodeJS.Timeout | undefined;
  let startedAtMs = 0;
  let before: Record<string, number> = {};
  let residentBytesMax: Record<string, number> = {};
  const sample = (): void => {
    for (const [name, bytes] of Object.entries(residentBytes(roots()))) {
      const kind = kindOf(name);
      residentBytesMax[kind] = Math.max(bytes, residentBytesMax[kind] ?? 0);
    }
  };
  return {
    start() {
      clearInterval(timer);
      residentBytesMax = {};
      startedAtMs = performance.now();
      before = cpuSeconds(roots());
      timer = setInterval(sample, sampleEveryMs);
      timer.unref();
    },
    stop() {
      clearInterval(timer);
      sample();
      const after = cpuSeconds(roots());
      const used: Record<string, number> = {};
      for (const [name, seconds] of Object.entries(after)) {
        const more = Math.max(0, seconds - (before[name] ?? 0));
        used[kindOf(name)] = (used[kindOf(name)] ?? 0) + more;
      }
      return {
        seconds: (performance.now() - startedAtMs) / 1_000,
        cpuSeconds: used,
        residentBytesMax,
      };
    },
  };
}

function kindOf(name: string): string {
  return name.replace(/ \d+$/, '');
}

/**
 * CPU seconds that each tree of processes has used since its start. When a child has ended, its parent
 * takes over its count, so the sum over the living processes never falls.
 */
export function cpuSeconds(roots: ProcessRoots): Record<string, number> {
  const byTree = groupByTree(roots);
  return Object.fromEntries(
    [...byTree].map(([name, stats]) => [
      name,
      stats.reduce((sum, { ticks }) => sum + ticks, 0) / ticksPerSecond,
    ]),
  );
}

/** The private pages of all processes of a tree, and the largest count of shared and of file pages. */
function residentBytes(roots: ProcessRoots): Record<string, number> {
  const result: Record<string, number> = {};
  for (const [name, stats] of groupByTree(roots)) {
    let own = 0;
    let file = 0;
    let shared = 0;
    for (const { pid } of stats) {
      const status = readText(`/proc/${pid}/status`);
      own += kilobytes(status, 'RssAnon');
      file = Math.max(file, kilobytes(status, 'RssFile'));
      shared = Math.max(shared, kilobytes(status, 'RssShmem'));
    }
    result[name] = (own + file + shared) * 1_024;
  }
  return result;
}

function kilobytes(status: string | undefined, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status ?? '')?.[1] ?? 0);
}

function groupByTree(roots: ProcessRoots): Map<string, Stat[]> {
  const stats = readStats();
  const children = new Map<number, Stat[]>();
  for (const stat of stats.values()) {
    const siblings = children.get(stat.parent);
    if (siblings === undefined) children.set(stat.parent, [stat]);
    else siblings.push(stat);
  }
  const trees = new Map<string, Stat[]>();
  for (const [name, pid] of Object.entries(roots)) {
    const root = stats.get(pid);
    const tree = root === undefined ? [] : [root];
    // The loop appends children to the list that it walks, so it reaches every descendant once.
    for (const { pid: parent } of tree) tree.push(...(children.get(parent) ?? []));
    trees.set(name, tree);
  }
  return trees;
}

function readStats(): Map<number, Stat> {
  const stats = new Map<number, Stat>();
  if (!tellsProcessUse()) return stats;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = parseStat(readText(`/proc/${name}/stat`));
    if (stat !== undefined) stats.set(stat.pid, stat);
  }
  return stats;
}

/** Reads a line of /proc/<pid>/stat. The program's name in it may hold spaces and brackets. */
export function parseStat(text: string | undefined): Stat | undefined {
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  // In proc(5) the state is field 3, the parent 4, and utime to cstime are 14 to 17.
  const ticks = [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index]), 0);
  return { pid: Number.parseInt(text, 10), parent: Number(fields[1]), ticks };
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    // The process has ended meanwhile.
    return undefined;
  }
}
