import os from 'node:os';
import { readIfThere } from '../../src/durable-file.ts';

/** The load of the machine, as a heartbeat has it. */
export interface Load {
  /** Of all CPUs together, since the reading before. Absent in the first reading. */
  cpuPercent?: number;
  /** In use: what programs could not get. */
  memoryBytes: number;
  /** Since the machine started. */
  uptimeSeconds: number;
}

export function createLoadMeter(): { read(): Load } {
  let before = cpuTimes();
  let isFirst = true;
  return {
    read() {
      const now = cpuTimes();
      const all = now.all - before.all;
      const idle = now.idle - before.idle;
      before = now;
      const percent = all > 0 && !isFirst ? Math.round(1_000 * (1 - idle / all)) / 10 : undefined;
      isFirst = false;
      return {
        ...(percent === undefined ? {} : { cpuPercent: Math.max(0, percent) }),
        memoryBytes: os.totalmem() - availableBytes(),
        uptimeSeconds: Math.floor(os.uptime()),
      };
    },
  };
}

function cpuTimes(): { all: number; idle: number } {
  let [all, idle] = [0, 0];
  for (const { times } of os.cpus()) {
    for (const time of Object.values(times)) all += time;
    idle += times.idle;
  }
  return { all, idle };
}

/** Linux counts its file cache as used, and gives it up when a program needs it. */
function availableBytes(): number {
  const found = /^MemAvailable:\s*(\d+) kB$/m.exec(readIfThere('/proc/meminfo') ?? '');
  return found === null ? os.freemem() : Number(found[1]) * 1_024;
}
