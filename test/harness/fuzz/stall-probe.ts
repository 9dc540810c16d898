import { openSync, readSync } from 'node:fs';

/**
 * Loaded into the api process before Core (`--import`): finds the longest turn of its event loop, in
 * which it answers nobody else. Asked over IPC, it answers `{ longestTurnMs }`, and begins anew.
 *
 * A turn is measured in the CPU time of the main thread, which is also the one that collects garbage
 * (src/processes/node-flags.ts): what a neighbour takes of a noisy machine does not count. A timer that is due
 * runs once a turn, so two of its ticks are at most a turn and the timer's millisecond apart.
 */
export interface StallAnswer {
  longestTurnMs: number;
}

const question = 'longest-turn';
const tickMs = 1;
const schedstat = openSchedstat();
const text = Buffer.alloc(64);

/** Linux tells a thread's CPU time in nanoseconds; elsewhere the clock has to do. */
function openSchedstat(): number | undefined {
  try {
    return openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
  } catch {
    return undefined;
  }
}

function spentMs(): number {
  if (schedstat === undefined) return performance.now();
  // Makes Linux bring the number up to date, which else it does at each clock tick only.
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
// Core stops when nothing is left to do, and this is nothing.
process.channel?.unref();
