import { decodeBody } from '../../src/accept/decode.ts';
import { ingestSchemas } from '../../src/contract/node.ts';
import type { BodySet } from './bodies.ts';
import { timeOne, turns } from './timing.ts';

/** What the machine where the targets were set checked: entries a second, 100 a request. */
export const referenceEntriesPerSecond = 1_040_000;

const bodiesMax = 16;
const entriesMax = 10_000;
const measureMs = 500;

/**
 * How fast this machine is at the moment, by work that never changes: entries a second that one core
 * checks with `JSON.parse` and zod. A virtual machine's speed changes by half within minutes, and a
 * target in absolute time with it.
 */
export function measureYardstick({ bodies }: Pick<BodySet, 'bodies'>): number {
  const schema = ingestSchemas({ entriesMax, nowMs: Date.now }).usage;
  const next = turns(bodies.slice(0, bodiesMax));
  const check = (): number => decodeBody(schema, next()).entries.length;
  // The first time is the compiler's.
  timeOne(check, measureMs);
  return timeOne(check, measureMs);
}
