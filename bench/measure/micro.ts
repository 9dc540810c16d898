import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { decodeBody } from '../../src/accept/decode.ts';
import { ingestSchemas } from '../../src/contract/node.ts';
import { packUsage, usageRow } from '../../src/rows/pack.ts';
import type { UsagePayload } from '../../src/rows/segment-rows.ts';
import { createUsageSums } from '../../src/rows/sums.ts';
import { openUsageRows } from '../../src/rows/usage-rows.ts';
import { scanUsage } from '../../src/rows/wasm.ts';
import { createBodies } from './bodies.ts';
import { type BenchOptions, emptyMeasured, type Measured, type Metric } from './metric.ts';
import { median } from './statistics.ts';
import { timeOne, turns } from './timing.ts';

const batchSizes = [1, 10, 100, 500];
const scannerName = 'scanner to compact rows';
const entriesMax = 10_000;
/** Rows of a full segment: the default of CORE_SEGMENT_ROWS_MAX. */
const segmentRows = 500_000;
const roundMs = 300;
const roundMsQuick = 60;
/** A round is short here, so there are more rounds than `--rounds`. */
const roundsFactor = 5;

/** One piece of work to time. `run` does it once and returns how many entries it was. */
interface Subject {
  name: string;
  run: () => number;
}

/**
 * Entries a second of one core, in this process, without sockets and stores. The subjects are the
 * WebAssembly scanner (bytes to compact rows and the fingerprint, copied as group commit copies the rows),
 * JSON.parse with zod (bytes to values), the same with packing (to packed rows), and what the worker does
 * in memory. All subjects take turns in each round, so that a slow moment of the machine affects all of
 * them. Each figure is the median of its rounds.
 */
export async function measureMicro(options: BenchOptions): Promise<Measured> {
  const measured = emptyMeasured();
  const bounds = { entriesMax, nowMs: Date.now };
  const schema = ingestSchemas(bounds).usage;
  const world = numberedWorld(options.subscriptions);
  for (const entries of batchSizes) {
    options.signal.throwIfAborted();
    options.say(`decoders at ${entries} entries a request`);
    const { bodies } = createBodies(world, { entries, seed: entries, atMs: Date.now() });
    // Few enough to stay in the processor's cache, because a body that has just arrived is there, too.
    const next = turns(bodies.slice(0, 16));
    const flushed = Buffer.alloc(65_536);
    const values = turns(bodies.slice(0, 16).map((body) => decodeBody(schema, body).entries));
    const rates = await timeAll(options, [
      {
        name: scannerName,
        run: () => {
          const scanned = scanUsage(1, next(), { entriesMax, nowMs: Date.now() });
          // Anything it does not take would be timed as if it had been read.
          if (scanned?.rows !== entries) throw new Error('the scanner did not take a plain body');
          scanned.bytes.copy(flushed, 0);
          return entries;
        },
      },
      { name: 'JSON.parse and zod', run: () => decodeBody(schema, next()).entries.length },
      {
        name: 'JSON.parse, zod and packing',
        run: () => {
          const decoded = decodeBody(schema, next()).entries;
          packUsage(1, decoded);
          return decoded.length;
        },
      },
      { name: 'packing', run: () => packUsage(1, values()).length / usageRow.length },
    ]);
    measured.metrics.push(...decoderMetrics(entries, rates));
  }
  options.say('a full segment: columns and sums');
  measured.metrics.push(...(await segmentMetrics(options, world)));
  return measured;
}

function decoderMetrics(entries: number, rates: ReadonlyMap<string, number>): Metric[] {
  const metrics: Metric[] = [...rates].map(([name, value]) => ({
    bench: 'micro',
    name: `${name}, ${entries} a request`,
    value,
    unit: 'entries/s',
    better: 'higher',
  }));
  const ratio = (rates.get(scannerName) ?? 0) / (rates.get('JSON.parse and zod') ?? 1);
  metrics.push({
    bench: 'micro',
    name: `scanner against JSON.parse and zod, ${entries} a request`,
    value: ratio,
    unit: 'times',
    better: 'higher',
    ...(entries === 100 ? { target: { min: 8 } } : {}),
    ...(entries === 1 ? { target: { min: 1 } } : {}),
  });
  return metrics;
}

/** Rows as the spool keeps them. */
function compactOf(body: Uint8Array): Buffer {
  const scanned = scanUsage(1, body, { entriesMax, nowMs: Date.now() });
  assert(scanned !== undefined, 'the scanner is certain of what the bench makes');
  const block = Buffer.alloc(scanned.bytes.length);
  scanned.bytes.copy(block, 0);
  return block;
}

async function segmentMetrics(
  options: BenchOptions,
  world: ReturnType<typeof numberedWorld>,
): Promise<Metric[]> {
  const { bodies } = createBodies(world, { entries: 500, seed: 1, atMs: Date.now() });
  const next = turns(bodies);
  const blocks = Array.from({ length: segmentRows / 500 }, () => compactOf(next()));
  const segment = { blocks: Buffer.concat(blocks), rows: segmentRows, segmentId: 1 };
  const memory = Buffer.allocUnsafeSlow(segmentRows * 64);
  const payloadOfAll = (): UsagePayload => {
    const opened = openUsageRows(segment, () => memory);
    const [month] = opened.months;
    assert(month !== undefined && opened.months.length === 1, 'rows of one month');
    return opened.payload(month, new Set());
  };
  const payload = payloadOfAll();
  const rates = await timeAll(options, [
    { name: 'unpacked, sorted and written by column', run: () => payloadOfAll().rows },
    {
      name: 'sums by subscription',
      run: () => {
        const sums = createUsageSums();
        sums.add(payload);
        return sums.columns().subscriptionIds.length && segmentRows;
      },
    },
  ]);
  return [...rates].map(([name, value]) => ({
    bench: 'micro',
    name: `${name}, ${segmentRows} rows of ${options.subscriptions} subscriptions`,
    value,
    unit: 'rows/s',
    better: 'higher',
  }));
}

/** Median rate of each subject. Round 0 is for the compiler and is not counted. */
async function timeAll(
  options: BenchOptions,
  subjects: readonly Subject[],
): Promise<Map<string, number>> {
  const lengthMs = options.quick ? roundMsQuick : roundMs;
  const found = new Map<string, number[]>(subjects.map(({ name }) => [name, []]));
  for (let round = 0; round <= options.rounds * roundsFactor; round += 1) {
    // Signals are handled only while this function waits.
    await setImmediate();
    options.signal.throwIfAborted();
    for (const { name, run } of subjects) {
      const rate = timeOne(run, lengthMs);
      if (round > 0) found.get(name)?.push(rate);
    }
  }
  return new Map([...found].map(([name, rates]) => [name, median(rates)]));
}

/** The ids that createBenchWorld makes, without a database. */
export function numberedWorld(subscriptions: number, nodes = 100) {
  const from = (first: number, count: number): number[] =>
    Array.from({ length: count }, (_, index) => first + index);
  return {
    userIds: from(1_000_001, subscriptions),
    subscriptionIds: from(1_000_001, subscriptions),
    nodeProtocolIds: from(1_000_001, nodes),
  };
}
