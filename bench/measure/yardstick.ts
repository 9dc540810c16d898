import { decodeBody } from '../../src/accept/decode.ts';
import { ingestSchemas } from '../../src/contract/node.ts';
import type { BodySet } from './bodies.ts';
import { timeOne, turns } from './timing.ts';

/** Entries a second, at 100 a request, of the machine on which the targets were set. */
export const referenceEntriesPerSecond = 1_040_000;

const bodiesMax = 16;
const entriesMax = 10_000;
const measureMs = 500;

/**
 * How fast this machine is at the moment: entries a second that one core checks with `JSON.parse` and
 * zod, which is work that never changes. A virtual machine's speed changes by half within minutes, and
 * with it every figure in absolute time.
 */
export function measureYardstick({ bodies }: Pick<BodySet, 'bodies'>): number {
  const schema = ingestSchemas({ entriesMax, nowMs: Date.now }).usage;
  const next = turns(bodies.slice(0, bodiesMax));
  const check = (): number => decodeBody(schema, next()).entries.length;
  // The first run is for the compiler.
  timeOne(check, measureMs);
  return timeOne(check, measureMs);
}
