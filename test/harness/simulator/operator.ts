import type pg from 'pg';
import { addOutbound } from '../../../src/settings/outbounds.ts';
import { pause } from './deliver.ts';
import { createRandom, integerIn } from './random.ts';
import type { FleetNode } from './world.ts';

/**
 * Changes what some node should run, again and again, so that the node's next heartbeat asks for a
 * sync. Returns the number of changes once `stop` aborts.
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
      // Postgres may be restarting, which the run is meant to survive. The next change comes at its
      // time, and no check depends on the number of changes.
    }
  }
  return changes;
}
