import { until } from '../../support/api.ts';
import { judgeBytes } from './bytes.ts';
import type { Counters, DrivenNode } from './node.ts';
import { type Bench, fail, open, type Trial } from './trial.ts';

const settleMsMax = 60_000;

/**
 * Reports the counters as an agent does, waits until Core has settled them, and compares what came out of the
 * proxy, Xray's counters, Core's rows and Core's counters. The connections are still open.
 */
export async function checkBytes(
  bench: Bench,
  node: DrivenNode,
  trials: readonly Trial[],
): Promise<void> {
  const counters = await node.report();
  await untilSettled(bench, trials, counters);
  const rows = await bench.core.rows(node.nodeId);
  for (const trial of open(trials)) {
    const counted = counters.get(trial.uuid) ?? { up: 0, down: 0 };
    const sent = trial.door.bytes();
    const row = rows.get(`${trial.subscriptionId} ${trial.nodeProtocolId}`) ?? { up: 0, down: 0 };
    const fault = judgeBytes({ sent, counted, row });
    if (fault !== undefined) fail(trial, 'c', fault);
  }
}

/** Waits until each subscription's counter is the sum of what Xray counted for its links. */
async function untilSettled(
  bench: Bench,
  trials: readonly Trial[],
  counted: Counters,
): Promise<void> {
  const due = new Map<number, { up: number; down: number }>();
  for (const { subscriptionId, uuid } of trials) {
    const sum = due.get(subscriptionId) ?? { up: 0, down: 0 };
    const bytes = counted.get(uuid) ?? { up: 0, down: 0 };
    due.set(subscriptionId, { up: sum.up + bytes.up, down: sum.down + bytes.down });
  }
  await until(
    () => bench.core.counters(),
    (counters) =>
      [...due].every(([subscriptionId, { up, down }]) => {
        const counter = counters.get(subscriptionId);
        return counter?.up === up && counter.down === down;
      }),
    settleMsMax,
  );
}
