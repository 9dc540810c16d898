import { ingestSchemas } from '../../src/contract/node.ts';
import { decodeBody } from '../../src/ingest/decode.ts';
import type { BodySet } from './bodies.ts';

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
  const few = bodies.slice(0, bodiesMax);
  const checkFor = (ms: number): number => {
    let entries = 0;
    const startedAtMs = performance.now();
    let elapsedMs = 0;
    while (elapsedMs < ms) {
      for (const body of few) entries += decodeBody(schema, body).entries.length;
      elapsedMs = performance.now() - startedAtMs;
    }
    return (entries / elapsedMs) * 1_000;
  };
  // The first time is the compiler's.
  checkFor(measureMs);
  return checkFor(measureMs);
}
