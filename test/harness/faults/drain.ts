import { setTimeout as delay } from 'node:timers/promises';
import type { FaultStores } from './oracle.ts';

const pollMs = 60;

/**
 * Waits until every segment is settled and every stream is empty. Both must be so twice in a row,
 * since a request without an answer may still be on its way through the api. False if the deadline
 * passes first.
 */
export async function untilDrained(stores: FaultStores, deadlineMs: number): Promise<boolean> {
  const giveUpAtMs = performance.now() + deadlineMs;
  let quiet = 0;
  while (performance.now() < giveUpAtMs) {
    quiet = (await isEmpty(stores).catch(() => false)) ? quiet + 1 : 0;
    if (quiet >= 2) return true;
    await delay(pollMs);
  }
  return false;
}

async function isEmpty({ pool, redis }: FaultStores): Promise<boolean> {
  const unsettled = await pool.query<{ open: boolean }>(
    `SELECT EXISTS (SELECT FROM segments WHERE state <> 'settled') AS open`,
  );
  if (unsettled.rows[0]?.open !== false) return false;
  const { rows } = await pool.query<{ stream: string }>('SELECT stream FROM streams');
  for (const { stream } of rows) if ((await redis.xlen(stream)) > 0) return false;
  return true;
}
