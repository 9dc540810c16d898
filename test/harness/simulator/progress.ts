import type { RecordableHistogram } from 'node:perf_hooks';
import type { Ledger } from './ledger.ts';

/**
 * Shows the progress of the run: on a terminal one line that changes every second, elsewhere a new line
 * every five seconds. Returns a function that stops it.
 */
export function startProgress(
  ledger: Ledger,
  latencyUs: RecordableHistogram,
  out: NodeJS.WriteStream,
): () => void {
  const startedMs = performance.now();
  const everyMs = out.isTTY ? 1_000 : 5_000;
  let lastMs = startedMs;
  let lastAttempts = ledger.tally.attempts;
  let lastRows = ledger.tally.ackedRows;
  const show = (): void => {
    const { tally } = ledger;
    const nowMs = performance.now();
    const seconds = (nowMs - lastMs) / 1_000;
    const fields = [
      `${Math.round((nowMs - startedMs) / 1_000)} s`,
      `${Math.round((tally.attempts - lastAttempts) / seconds)} requests/s`,
      `${Math.round((tally.ackedRows - lastRows) / seconds)} entries/s`,
      `acked ${tally.ackedRequests}`,
      `retried ${tally.retries}`,
      `unknown ${tally.unknownRequests}`,
      `p50 ${latencyMs(latencyUs, 50)} ms`,
      `p99 ${latencyMs(latencyUs, 99)} ms`,
    ];
    lastMs = nowMs;
    lastAttempts = tally.attempts;
    lastRows = tally.ackedRows;
    const line = fields.join('  ');
    out.write(out.isTTY ? `\r\u001b[2K${line.slice(0, (out.columns ?? 80) - 1)}` : `${line}\n`);
  };
  const timer = setInterval(show, everyMs);
  return () => {
    clearInterval(timer);
    show();
    if (out.isTTY) out.write('\n');
  };
}

/** A percentile of all latencies of the run, in milliseconds with one decimal. */
export function latencyMs(latencyUs: RecordableHistogram, percentile: number): string {
  return latencyUs.count === 0 ? '-' : (latencyUs.percentile(percentile) / 1_000).toFixed(1);
}

/** One line for each name and value, with the names padded to one width. */
export function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join('\n');
}
