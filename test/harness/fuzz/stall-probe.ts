import { openSync, readSync } from 'node:fs';

/**
 * Loaded into the api process before Core (`--import`). It finds the longest turn of the event loop: during
 * a turn the process answers nobody. If asked over IPC, it answers `{ longestTurnMs }` and begins anew.
 *
 * It measures the CPU time of the main thread, which also collects garbage
 * (src/processes/node-flags.ts), so other programs on the machine do not count. A timer that is due
 * runs once a turn, so its ticks are at most one turn and one millisecond apart.
 */
export interface StallAnswer {
  longestTurnMs: number;
}

const question = 'longest-turn';
const tickMs = 1;
const schedstat = openSchedstat();
const text = Buffer.alloc(64);

/** Linux has a thread's CPU time in nanoseconds. On other systems the clock is used. */
function openSchedstat(): number | undefined {
  try {
    return openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
  } catch {
    return undefined;
  }
}

function spentMs(): number {
  if (schedstat === undefined) return performance.now();
  // Makes Linux update the number. Otherwise it does so only at each clock tick.
  process.cpuUsage();
  const length = readSync(schedstat, text, 0, text.length, 0);
  return Number.parseInt(text.toString('latin1', 0, length), 10) / 1e6;
}

let longestTurnMs = 0;
let lastMs = spentMs();
setInterval(() => {
  const nowMs = spentMs();
  longestTurnMs = Math.max(longestTurnMs, nowMs - lastMs);
  lastMs = nowMs;
}, tickMs).unref();

process.on('message', (message) => {
  if (message !== question) return;
  process.send?.({ longestTurnMs } satisfies StallAnswer);
  longestTurnMs = 0;
});
// This listener must not keep the process from ending.
process.channel?.unref();
