import type pg from 'pg';
import { addOutbound } from '../../../src/settings/outbounds.ts';
import { pause } from './deliver.ts';
import { createRandom, integerIn } from './random.ts';
import type { FleetNode } from './world.ts';

/**
 * Changes what a node should run now and then, so that its next heartbeat asks for a sync. Returns
 * the number of changes when `stop` fires.
 */
export async function runOperator(
  pool: pg.Pool,
  nodes: readonly FleetNode[],
  options: { everyMs: number; seed: number },
  stop: AbortSignal,
): Promise<number> {
  const random = createRandom(options.seed);
  let changes = 0;
  while (await pause(options.everyMs, stop)) {
    const node = nodes[integerIn(random, 0, nodes.length - 1)] as FleetNode;
    try {
      await addOutbound(pool, {
        nodeId: node.nodeId,
        tag: `exit-${changes + 1}`,
        protocol: 'freedom',
        settings: {},
      });
      changes += 1;
    } catch {
      // The run may be there to see Core through a restart of Postgres: the next change is tried
      // at its time, and what is checked at the end does not hang on how many there were.
    }
  }
  return changes;
}
