import { setTimeout as delay } from 'node:timers/promises';
import type { ClickHouseClient } from '../src/stores/clickhouse.ts';

const pollMs = 100;
/** A merge that has ended can make the next one worth while. */
const idlePolls = 10;

/** Waits until ClickHouse has merged nothing for a second, or `msMax` are over. */
export async function untilMerged(clickhouse: ClickHouseClient, msMax: number): Promise<void> {
  const giveUpAtMs = performance.now() + msMax;
  for (let idle = 0; idle < idlePolls && performance.now() < giveUpAtMs; ) {
    const answer = await clickhouse.query({
      query: 'SELECT count() AS running FROM system.merges',
      format: 'JSONEachRow',
    });
    const [merges] = await answer.json<{ running: number }>();
    idle = merges?.running === 0 ? idle + 1 : 0;
    await delay(pollMs);
  }
}
