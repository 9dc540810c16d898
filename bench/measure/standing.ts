import { setTimeout as delay } from 'node:timers/promises';
import { reconcile } from '../../src/audit/reconcile.ts';
import { streamKeys } from '../../src/spool/streams.ts';
import type { BenchCore } from './core.ts';
import type { BenchName, Check } from './metric.ts';

/** How far the usage rows of a Core have come at one moment. */
export interface Standing {
  atMs: number;
  /** Rows ever appended to the spool. Each of them got a 200. */
  appendedRows: number;
  /** Rows of all segments, settled or not. No worker has read the other rows yet. */
  sealedRows: number;
  /** Rows of settled segments: they are in ClickHouse and in the counters. */
  settledRows: number;
  /** Bytes in Redis that are not trimmed. */
  backlogBytes: number;
}

/** Growth of one count of rows from the first to the last standing, a second; 0 for fewer than two. */
export function perSecondOf(
  standings: readonly Standing[],
  rows: 'appendedRows' | 'sealedRows' | 'settledRows',
): number {
  const [first, last] = [standings[0], standings.at(-1)];
  if (first === undefined || last === undefined || first === last) return 0;
  return ((last[rows] - first[rows]) * 1_000) / (last.atMs - first.atMs);
}

const pollMs = 100;
/** Longer than a flush takes on a busy machine. */
const stillMs = 1_000;
const stillTurnsMax = 60;
const auditMsMax = 600_000;

/** Reads the counts that Core itself keeps. */
async function readStanding(core: BenchCore): Promise<Standing> {
  const { rows } = await core.pool.query<{ stream: string; sealed: number; settled: number }>(
    `SELECT s.stream, coalesce(sum(g.rows), 0)::bigint AS sealed,
       coalesce(sum(g.rows) FILTER (WHERE g.state = 'settled'), 0)::bigint AS settled
     FROM streams s LEFT JOIN segments g USING (stream) WHERE s.kind = 'usage' GROUP BY s.stream`,
  );
  const sealedRows = rows.reduce((sum, { sealed }) => sum + sealed, 0);
  const settledRows = rows.reduce((sum, { settled }) => sum + settled, 0);
  let appendedRows = 0;
  let appendedBytes = 0;
  let trimmedBytes = 0;
  for (const { stream } of rows) {
    const keys = streamKeys(stream);
    const [appended, trimmed, ever] = await core.redis.mget(keys.appended, keys.trimmed, keys.rows);
    appendedRows += Number(ever ?? 0);
    appendedBytes += Number(appended ?? 0);
    trimmedBytes += Number(trimmed ?? 0);
  }
  return {
    atMs: performance.now(),
    appendedRows,
    sealedRows,
    settledRows,
    backlogBytes: appendedBytes - trimmedBytes,
  };
}

/** Reads the standing every second until `until` aborts, and hands each one to `see`. */
export async function watchStanding(
  core: BenchCore,
  until: AbortSignal,
  see: (standing: Standing) => void,
): Promise<void> {
  const startMs = performance.now();
  for (let turn = 0; !until.aborted; turn += 1) {
    see(await readStanding(core));
    const waitMs = Math.max(0, startMs + (turn + 1) * 1_000 - performance.now());
    await delay(waitMs, undefined, { signal: until }).catch(() => undefined);
  }
}

/**
 * Waits until everything appended is settled and trimmed.
 * @throws Error if that takes longer than `msMax`.
 */
export async function untilDrained(core: BenchCore, msMax: number): Promise<Standing> {
  await untilStill(core);
  const giveUpAtMs = performance.now() + msMax;
  for (;;) {
    const standing = await readStanding(core);
    if (standing.settledRows === standing.appendedRows && standing.backlogBytes === 0) {
      return standing;
    }
    if (performance.now() > giveUpAtMs) {
      throw new Error(
        `Core has settled ${standing.settledRows} of ${standing.appendedRows} rows in ${msMax / 1_000} s`,
      );
    }
    await delay(pollMs);
  }
}

/**
 * Waits until nothing is appended any more. wrk does not wait for its last answers, so its last
 * requests may still be on their way through the api.
 */
export async function untilStill(core: BenchCore): Promise<Standing> {
  let last = await readStanding(core);
  for (let turns = 0; turns < stillTurnsMax; turns += 1) {
    await delay(stillMs);
    const standing = await readStanding(core);
    if (standing.appendedRows === last.appendedRows) return standing;
    last = standing;
  }
  throw new Error(`rows are still appended ${(stillTurnsMax * stillMs) / 1_000} s after the last`);
}

/**
 * Throws the spool's rows away, so that the next run of accept alone need not wait until they are loaded.
 * Only for a Core with a stopped worker and an idle api.
 */
export async function emptySpool(core: BenchCore): Promise<void> {
  await core.redis.flushall();
  await core.pool.query("DELETE FROM segments WHERE state = 'sealed'");
}

/**
 * Compares what was acked with what was appended. wrk does not wait for its last answers, so Core may
 * have stored up to one request a connection that wrk does not count.
 */
export function checkAppended(
  bench: BenchName,
  name: string,
  run: { acked: number; entries: number; appendedRows: number; connections: number },
): Check {
  const least = run.acked * run.entries;
  const most = (run.acked + run.connections) * run.entries;
  const { appendedRows, entries } = run;
  return {
    bench,
    name,
    passed: appendedRows >= least && appendedRows <= most && appendedRows % entries === 0,
    detail: `${run.acked} answers of 200 with ${entries} entries, ${appendedRows} rows appended`,
  };
}

/**
 * After a drain: ClickHouse has as many rows as were appended, and Core's own audit finds no
 * difference. If every row belongs to an existing subscription (`everyRowCounts`), the sum of all
 * counters must also be the sum of all rows.
 */
export async function checkSettled(
  bench: BenchName,
  core: BenchCore,
  appendedRows: number,
  { everyRowCounts }: { everyRowCounts: boolean } = { everyRowCounts: true },
): Promise<Check[]> {
  const result = await core.clickhouse.query({
    query: `SELECT toString(count()) AS rows, toString(sum(bytes_up)) AS up,
              toString(sum(bytes_down)) AS down FROM usage`,
    format: 'JSONEachRow',
  });
  const [found] = await result.json<{ rows: string; up: string; down: string }>();
  const counters = await core.pool.query<{ up: string; down: string }>(
    `SELECT coalesce(sum(traffic_bytes_up), 0)::text AS up,
       coalesce(sum(traffic_bytes_down), 0)::text AS down FROM subscriptions`,
  );
  const [counted] = counters.rows;
  const signal = AbortSignal.timeout(auditMsMax);
  const audit = await reconcile(core, { since: null, signal });
  return [
    {
      bench,
      name: 'audit',
      passed: audit.differences === 0,
      detail: `${audit.segments} segments and ${audit.subscriptions} counters compared, ${audit.differences} differ`,
    },
    {
      bench,
      name: 'rows in ClickHouse',
      passed: found?.rows === String(appendedRows),
      detail: `${appendedRows} appended, ${found?.rows} in ClickHouse`,
    },
    {
      bench,
      name: 'counters in Postgres',
      passed: !everyRowCounts || (found?.up === counted?.up && found?.down === counted?.down),
      detail: `rows add up to ${found?.up} and ${found?.down} bytes, counters to ${counted?.up} and ${counted?.down}`,
    },
  ];
}
