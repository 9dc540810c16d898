import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { bodyCount, coreFormat, createBodies, numberBody } from '../../bench/measure/bodies.ts';
import { comparisonTable, measuringFiles } from '../../bench/measure/compare.ts';
import { isReached, type Metric } from '../../bench/measure/metric.ts';
import { numberedWorld } from '../../bench/measure/micro.ts';
import { jsonEachRowFormat, lineFormat } from '../../bench/measure/peers/formats.ts';
import {
  medianRates,
  peerMetrics,
  peerSeries,
  ratioTable,
} from '../../bench/measure/peers/ratios.ts';
import { checkStored, secondsUntilAllCame } from '../../bench/measure/peers/turn.ts';
import { writePlots } from '../../bench/measure/plots.ts';
import { cpuSeconds, parseStat, tellsProcessUse } from '../../bench/measure/processes.ts';
import { type Results, readBefore, writeResults } from '../../bench/measure/results.ts';
import { checkAppended, type Standing } from '../../bench/measure/standing.ts';
import { mean, median, percentile, slope, spread } from '../../bench/measure/statistics.ts';
import { createSteering } from '../../bench/measure/steering.ts';
import { summarise } from '../../bench/measure/sustain.ts';
import { niceTicks, plotSvg, shortNumber } from '../../bench/measure/svg.ts';
import { changeText, checksText, metricsTable, numberText } from '../../bench/measure/table.ts';
import { rotated } from '../../bench/measure/timing.ts';
import { startWrk } from '../../bench/measure/wrk.ts';
import { decodeBody } from '../../src/accept/decode.ts';
import { ingestSchemas } from '../../src/contract/node.ts';
import { projectRoot } from '../../src/root.ts';
import { packUsage } from '../../src/rows/pack.ts';
import { expandUsage } from '../../src/rows/usage-rows.ts';
import { scanUsage } from '../../src/rows/wasm.ts';
import { createRandom } from '../harness/simulator/random.ts';
import { copyOf } from '../support/copy-of.ts';
import { scratchFolder } from '../support/scratch-folder.ts';

const bounds = { entriesMax: 10_000, nowMs: Date.now };

/**
 * A window of a minute with a sample a second. `perSecond` rows come in. Every ten seconds ten times
 * `settlesPerSecond` of them become settled, the share `late` of these a second later.
 */
function sawtooth(perSecond: number, settlesPerSecond = perSecond, late = 0): Standing[] {
  return Array.from({ length: 61 }, (_, second) => {
    const lumps = Math.floor((second + 3) / 10);
    const isSplit = (second + 3) % 10 === 0;
    const settledRows = (lumps - (isSplit ? late : 0)) * settlesPerSecond * 10;
    const appendedRows = 8e6 + perSecond * second;
    const atMs = 1e12 + second * 1_000;
    return { atMs, appendedRows, sealedRows: appendedRows, settledRows, backlogBytes: second };
  });
}

t.test('a saw-toothed backlog: its slope and its rate are those of whole teeth', async (t) => {
  const changed = (window: Standing[]): number => {
    const { backlogStartRows, backlogEndRows, acceptedRows } = summarise(window);
    return (backlogEndRows - backlogStartRows) / acceptedRows;
  };
  for (const late of [0, 0.4]) {
    const flat = summarise(sawtooth(600_000, 600_000, late));
    t.equal(flat.settledPerSecond, 600_000);
    t.ok(Math.abs(changed(sawtooth(600_000, 600_000, late))) < 1e-6, 'flat, and found flat');
    t.ok(Math.abs(changed(sawtooth(600_000, 540_000, late)) - 0.1) < 0.001, 'it rises by 10 %');
    t.ok(Math.abs(changed(sawtooth(600_000, 660_000, late)) + 0.1) < 0.001, 'it falls by 10 %');
  }
  t.equal(summarise(sawtooth(600_000)).backlogBytesMax, 60);
  t.equal(summarise(sawtooth(600_000)).backlog.length, 61);
  const short = sawtooth(600_000).slice(0, 25);
  t.ok(changed(short) > 0.05, 'one tooth does not tell whether the backlog is flat');
  const idle = summarise(sawtooth(0, 0));
  t.equal(idle.settledPerSecond, 0);
  t.equal(idle.backlogEndRows, idle.backlogStartRows);
});

/**
 * Samples, one a second, of a sender that sends at the steered rate and a loader that seals whole
 * segments. `loads` is how many rows the loader can do in each second.
 */
function steeredRun(seconds: number, loads: (second: number) => number) {
  const steering = createSteering(400_000);
  const samples: Standing[] = [];
  let [appendedRows, sealedRows, heldAt] = [0, 0, Number.POSITIVE_INFINITY];
  let work = 0;
  for (let second = 0; second < heldAt + seconds; second += 1) {
    if (heldAt === Number.POSITIVE_INFINITY && second >= 60 && steering.isFound()) {
      steering.hold();
      heldAt = second;
    }
    assert(second < 180, 'the rate is found in time');
    appendedRows += steering.rate();
    work = Math.min(work + loads(second - heldAt), appendedRows - sealedRows);
    const segments = Math.floor(work / 500_000);
    sealedRows += segments * 500_000;
    work -= segments * 500_000;
    const atMs = 1_000 * second;
    const standing = { atMs, appendedRows, sealedRows, settledRows: sealedRows, backlogBytes: 0 };
    steering.see(standing);
    if (second >= heldAt) samples.push(standing);
  }
  return samples;
}

t.test('a sustained run sends what the loader can do, and the unread rows stay', async (t) => {
  const unread = ({ appendedRows, sealedRows }: Standing): number => appendedRows - sealedRows;
  const speeds = {
    steady: () => 900_000,
    'slow for a while': (second: number) => (second > 30 && second < 50 ? 700_000 : 900_000),
    'faster from then on': (second: number) => (second > 40 ? 1_100_000 : 900_000),
    'up and down': (second: number) => 900_000 + (second > 0 ? 150_000 * Math.sin(second / 5) : 0),
  };
  for (const [name, loads] of Object.entries(speeds)) {
    const samples = steeredRun(75, loads);
    const window = samples.slice(15);
    const accepted = (window.at(-1)?.appendedRows ?? 0) - (window[0]?.appendedRows ?? 0);
    const capacity = window.slice(1).reduce((sum, _, index) => sum + loads(index + 16), 0);
    t.ok(
      Math.abs(accepted / capacity - 1) < 0.03,
      `${name}: the sender sends what the loader can do`,
    );
    const changed = slope(window.map((standing, x) => ({ x, y: unread(standing) }))) * 60;
    t.ok(Math.abs(changed) < 0.025 * accepted, `${name}: the unread rows stay the same`);
    t.ok(Math.min(...window.map(unread)) > 0, `${name}: the loader never waits for rows`);
  }
});

t.test('statistics', async (t) => {
  t.equal(mean([1, 2, 6]), 3);
  t.throws(() => mean([]));
  t.equal(median([3, 1, 2]), 2);
  t.equal(median([4, 1, 2, 3]), 2.5);
  t.throws(() => median([]));
  const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);
  t.equal(percentile(hundred, 0.5), 50);
  t.equal(percentile(hundred, 0.99), 99);
  t.equal(percentile(hundred, 1), 100);
  t.equal(percentile([7], 0.01), 7);
  t.equal(slope([]), 0);
  t.equal(slope([{ x: 1, y: 5 }]), 0);
  t.equal(slope([0, 1, 2, 3].map((x) => ({ x, y: 3 * x + 1 }))), 3);
  t.equal(spread([10, 12]), 0.2);
  t.equal(spread([0, 1]), Number.POSITIVE_INFINITY);
});

t.test('all bodies differ, and the scanner and zod make the same rows of each', async (t) => {
  const schema = ingestSchemas(bounds).usage;
  const random = createRandom(1);
  for (const entries of [1, 10, 100]) {
    const set = createBodies(numberedWorld(300), { entries, seed: 5, atMs: Date.now() });
    const seen = new Set<string>();
    const requests = 3 * set.bodies.length;
    for (let number = 0; number < requests; number += 1) {
      const body = Buffer.from(set.bodies[number % set.bodies.length] as Buffer);
      numberBody(set, body, number, random);
      seen.add(body.toString('latin1'));
      const scanned = scanUsage(7, body, { ...bounds, nowMs: Date.now() });
      const decoded = decodeBody(schema, body).entries;
      const packed = scanned && expandUsage(copyOf(scanned.bytes), scanned.rows);
      if (packed?.equals(packUsage(7, decoded)) !== true || scanned?.rows !== entries) {
        t.fail(body.toString());
      }
      const [first] = decoded;
      const high = Math.floor((first?.bytesUp ?? 0) / 1_000) % 10_000;
      const low = Math.floor((first?.bytesDown ?? 0) / 100_000) % 10_000;
      if (high * 10_000 + low !== number) t.fail(`${number} cannot be read back`);
    }
    t.equal(seen.size, requests);
  }
});

t.test('bodies name every subscription about equally often', async (t) => {
  const world = numberedWorld(500);
  const { bodies } = createBodies(world, { entries: 50, seed: 1, atMs: Date.now() });
  const counts = new Map<number, number>();
  for (const body of bodies) {
    const { entries } = JSON.parse(body.toString()) as { entries: { subscriptionId: number }[] };
    const named = new Set(entries.map((entry) => entry.subscriptionId));
    t.equal(named.size, entries.length);
    for (const { subscriptionId } of entries) {
      counts.set(subscriptionId, (counts.get(subscriptionId) ?? 0) + 1);
    }
  }
  t.equal(counts.size, 500);
  t.ok(Math.max(...counts.values()) - Math.min(...counts.values()) <= 1);
  const digits = [...coreFormat.fours.map(() => 4), ...coreFormat.sixties.map(() => 2)];
  const sample = (bodies[0] as Buffer).toString('latin1').slice(coreFormat.prefix.length);
  [...coreFormat.fours, ...coreFormat.sixties].forEach((at, index) => {
    t.match(sample.slice(at, at + (digits[index] as number)), /^\d+$/);
  });
});

/** Bodies as the sender makes them: changed for each request, with its number in the first entry. */
function peerBodies(format: typeof lineFormat, entries: number): string[] {
  const world = numberedWorld(300, 50);
  const set = createBodies(world, { entries, seed: 5, atMs: Date.now(), format });
  const random = createRandom(1);
  return Array.from({ length: 2 * set.bodies.length }, (_, number) => {
    const body = Buffer.from(set.bodies[number % set.bodies.length] as Buffer);
    numberBody(set, body, number, random);
    return body.toString('latin1');
  });
}

t.test('bodies for peers: valid, of one length, all different, of the last hours', async (t) => {
  const line =
    /^usage,sub=(\d{7}),user=(\d{7}),proto=(\d{7}) up=([1-9]\d{7})i,down=([1-9]\d{9})i (\d{16})$/;
  for (const entries of [1, 10, 100]) {
    const bodies = peerBodies(lineFormat, entries);
    const json = peerBodies(jsonEachRowFormat, entries);
    for (const all of [bodies, json]) {
      t.equal(new Set(all).size, all.length);
      t.equal(new Set(all.map(({ length }) => length)).size, 1);
    }
    for (const body of bodies) {
      const lines = body.split('\n');
      if (lines.pop() !== '' || lines.length !== entries) t.fail(body);
      for (const one of lines) {
        const ageMs = Date.now() - Number(line.exec(one)?.[6]) / 1_000;
        if (!(ageMs > 0 && ageMs < 3 * 3_600_000)) t.fail(one);
      }
    }
    for (const body of json) {
      const rows = body.trimEnd().split('\n');
      if (rows.length !== entries) t.fail(body);
      for (const row of rows) {
        const found = JSON.parse(row) as Record<string, number | string>;
        const ageMs = Date.now() - Date.parse(`${found['recorded_at']}Z`);
        const counted = Number(found['bytes_up']) + Number(found['bytes_down']);
        if (!(ageMs > 0 && ageMs < 3 * 3_600_000 && counted > 1e9)) t.fail(row);
      }
    }
  }
});

t.test('nodes share the bodies out evenly', async (t) => {
  t.equal(bodyCount({ wanted: 4_000, most: 6_200, nodes: 10_000 }), 5_000);
  t.equal(bodyCount({ wanted: 800, most: 1_240, nodes: 10_000 }), 1_000);
  t.equal(bodyCount({ wanted: 40_000, most: 20_000, nodes: 10_000 }), 20_000);
  t.equal(bodyCount({ wanted: 16, most: 20_000, nodes: 7 }), 21);
  t.equal(bodyCount({ wanted: 3, most: 5, nodes: 7 }), 1, 'a prime');
  t.equal(
    bodyCount({ wanted: 3, most: 0, nodes: 10 }),
    1,
    'a body is larger than the bound of all bodies',
  );
});

t.test('a peer gets the same entries at every batch size', async (t) => {
  const world = numberedWorld(200, 50);
  const lines = [10, 100].map((entries) => {
    const options = { entries, seed: 1, atMs: 1e12, format: lineFormat };
    return createBodies(world, options)
      .bodies.slice(0, 200 / entries)
      .join('');
  });
  t.equal(lines[0], lines[1]);
});

t.test('peers side by side: medians, ratios and targets', async (t) => {
  const core = { alone: 'Core', withWorker: 'Core+' };
  const rate = (name: string, entries: number, entriesPerSecond: number) => ({
    name,
    entries,
    entriesPerSecond,
  });
  const rates = [
    ...[rate('Core', 10, 300), rate('Core', 10, 900), rate('Core', 10, 600)],
    ...[rate('Core', 100, 1_000), rate('Core+', 100, 800), rate('Core+', 10, 400)],
    ...[rate('peer', 100, 400), rate('peer', 10, 200), rate('dead', 10, 0)],
  ];
  const medians = medianRates(['Core', 'Core+', 'peer', 'dead', 'missing'], rates);
  const metrics = peerMetrics(medians, core, { peer: new Map([[100, 3]]) });
  const find = (name: string) => metrics.find((metric) => metric.name === name);
  t.equal(find('Core, 10 a request')?.value, 600);
  t.equal(find('Core ÷ peer, 10 a request')?.value, 3);
  t.equal(find('Core ÷ peer, 10 a request')?.target, undefined);
  t.same(find('Core ÷ peer, 100 a request')?.target, { min: 3 });
  t.equal(isReached(find('Core ÷ peer, 100 a request') as Metric), false);
  t.equal(find('Core+ ÷ peer, 100 a request')?.value, 2);
  t.notOk(metrics.some(({ name }) => /÷ (dead|missing|Core)/.test(name)));
  const table = ratioTable(medians, core);
  t.match(table, /^peer +100 +400 +2\.5 +2$/m);
  t.match(table, /^Core +10 +600 +1 +0\.667$/m);
  t.same(peerSeries(medians)[2]?.points, [
    { x: 10, y: 200 },
    { x: 100, y: 400 },
  ]);
  t.same(rotated(['a', 'b', 'c'], 4), ['b', 'c', 'a']);
});

t.test('a warm-up goes on if it was too short to send every body once', async (t) => {
  t.equal(secondsUntilAllCame(20_000, { ok: 20_000, seconds: 3 }), 0);
  t.equal(secondsUntilAllCame(20_000, { ok: 19_999, seconds: 3 }), 8);
  t.equal(secondsUntilAllCame(2_000, { ok: 500, seconds: 1 }), 10);
  t.equal(secondsUntilAllCame(20_000, { ok: 10, seconds: 3 }), 180, 'bounded');
  t.equal(secondsUntilAllCame(20_000, { ok: 0, seconds: 3 }), 180, 'nothing came');
});

t.test('a peer has to store what it answered with 2xx', async (t) => {
  const passed = (stored: number, overwrittenShareMax = 0) =>
    checkStored('peer', { least: 1_000, most: 1_100, refused: 0, stored, overwrittenShareMax })
      .passed;
  t.equal(passed(1_000), true);
  t.equal(passed(1_100), true);
  t.equal(passed(999), false, 'lost');
  t.equal(passed(999, 0.001), true, 'overwritten by its twin');
  t.equal(passed(998, 0.001), false);
  t.equal(passed(1_101), false, 'never sent');
  const nothing = { least: 0, most: 64, refused: 9, stored: 0, overwrittenShareMax: 0 };
  t.equal(checkStored('peer', nothing).passed, false);
});

/** The files that a measuring file imports, without those of Core: these are what is compared. */
function measuringImports(file: string): string[] {
  const text = readFileSync(path.join(projectRoot, file), 'utf8');
  return [...text.matchAll(/ from '(\.[^']+)';/g)]
    .map(([, target = '']) => path.join(path.dirname(file), target))
    .filter((target) => !target.startsWith('src/'));
}

t.test('compare takes every file that the measuring code imports', async (t) => {
  const taken = new Set(measuringFiles());
  const code = [...taken].filter((file) => file.endsWith('.ts'));
  t.ok(code.length > 20);
  for (const file of code) {
    for (const target of measuringImports(file)) t.ok(taken.has(target), `${file} takes ${target}`);
  }
});

const metric = (value: number, more: Partial<Metric> = {}): Metric => ({
  bench: 'e2e',
  name: '100 a request',
  value,
  unit: 'entries/s',
  better: 'higher',
  ...more,
});

t.test('the table has targets, and the change against the last run', async (t) => {
  t.equal(isReached(metric(1)), true);
  t.equal(isReached(metric(9, { target: { min: 10 } })), false);
  t.equal(isReached(metric(10, { target: { max: 10 } })), true);
  const before = new Map([['e2e / 100 a request', { value: 500_000, date: '2026-01-01' }]]);
  const metrics = [
    metric(600_000, { target: { min: 550_000 } }),
    metric(300, { name: 'memory', unit: 'MB', better: 'lower', target: { max: 250 } }),
  ];
  const [, first, second] = metricsTable(metrics, before).split('\n');
  t.match(first, /100 a request +600,000 +entries\/s +>= 550,000 +yes +\+20 %/);
  t.match(second, /memory +300 +MB +<= 250 +NO$/);
  t.equal(numberText(0.12345), '0.123');
  t.equal(numberText(1_234_567.8), '1,234,568');
  t.equal(changeText(90, 100), '-10 %');
  t.equal(changeText(1, 0), '');
});

t.test('a failed check is named', async (t) => {
  const run = { entries: 10, connections: 2 };
  const check = (acked: number, appendedRows: number) =>
    checkAppended('accept', 'rows', { ...run, acked, appendedRows });
  t.equal(check(5, 50).passed, true);
  t.equal(check(5, 70).passed, true, 'one more request a connection may have been stored');
  t.equal(check(5, 80).passed, false);
  t.equal(check(5, 40).passed, false, 'lost');
  t.equal(check(5, 55).passed, false, 'half a body');
  t.match(checksText([check(5, 50)]), /1 checks of the data, all passed/);
  t.match(checksText([check(5, 40), check(5, 50)]), /FAILED {2}accept: rows: .*\n1 of 2/);
});

const results = (date: string, value: number, quick = false): Results => ({
  date,
  quick,
  machine: { cores: 2, processor: 'p', memoryBytes: 1, system: 's', node: '20', commit: 'c' },
  options: {},
  metrics: [metric(value)],
  checks: [],
  series: [],
});

t.test('results are kept by date, and the newest of the same kind is compared', async (t) => {
  const dir = path.join(scratchFolder(t), 'results');
  t.equal(readBefore(false, dir).size, 0);
  const names = [
    results('2026-01-02T10:00:00.000Z', 3),
    results('2026-01-02T09:00:00.000Z', 2),
    results('2026-01-03T00:00:00.000Z', 9, true),
  ].map((one) => path.basename(writeResults(one, dir)));
  t.same(names, ['2026-01-02.json', '2026-01-02-2.json', '2026-01-03-quick.json']);
  writeFileSync(path.join(dir, 'other.json'), '{"metrics": 1}');
  writeFileSync(path.join(dir, 'broken.json'), '{');
  t.equal(readBefore(false, dir).get('e2e / 100 a request')?.value, 3);
  t.equal(readBefore(true, dir).get('e2e / 100 a request')?.value, 9);
});

t.test('two commits side by side: medians, ratio, and which is better', async (t) => {
  const runs = (values: number[]) =>
    values.map((value) => results('2026-01-01T00:00:00.000Z', value));
  const text = comparisonTable('abc', runs([100, 300, 200]), runs([400, 500, 300]));
  t.match(text, /100 a request +200 +400 +entries\/s +2 times +\+100 % +yes/);
  t.match(text.split('\n')[0], /abc +this tree/);
});

t.test('a plot holds its lines, escaped, and follows the color scheme', async (t) => {
  t.same(niceTicks(0), [0, 1]);
  for (const max of [0.3, 1, 7, 10, 99, 1_234_567, 3e6]) {
    const ticks = niceTicks(max);
    t.ok((ticks.at(-1) as number) >= max && ticks.length >= 4 && ticks.length <= 9, String(max));
  }
  t.equal(shortNumber(1_500_000), '1.5 M');
  t.equal(shortNumber(1_000), '1000');
  const svg = plotSvg({
    title: 'a < b & c',
    xLabel: 'x',
    yLabel: 'y',
    xScale: 'log',
    lines: [
      { label: 'one', points: [10, 100, 1_000].map((x) => ({ x, y: x })) },
      { label: 'two', points: [{ x: 10, y: 0 }] },
    ],
  });
  t.match(svg, /a &lt; b &amp; c/);
  t.match(svg, /prefers-color-scheme: dark/);
  t.equal(svg.match(/<polyline/g)?.length, 2);
  t.notMatch(svg, /NaN|Infinity|undefined/);
  const dir = scratchFolder(t);
  const files = writePlots(
    [{ bench: 'e2e', plot: 'batch', label: 'end to end', points: [{ x: 100, y: 1 }] }],
    false,
    dir,
  );
  t.same(
    files.map((file) => path.basename(file)),
    ['throughput-batch.svg'],
  );
  t.match(readFileSync(files[0] as string, 'utf8'), /^<svg /);
});

t.test('CPU of a process and what descends from it', async (t) => {
  const stat = `42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 0 0 11 22 33 44 20 0 1 0 1 1 1`;
  t.same(parseStat(stat), { pid: 42, parent: 7, ticks: 110 });
  t.equal(parseStat(undefined), undefined);
  if (tellsProcessUse()) {
    const used = cpuSeconds({ test: process.pid, gone: 2_000_000_000 });
    t.ok((used['test'] ?? 0) > 0);
    t.equal(used['gone'], 0);
  }
});

t.test('without wrk one line says what is missing', async (t) => {
  const before = process.env['PATH'];
  t.teardown(() => {
    process.env['PATH'] = before;
  });
  process.env['PATH'] = scratchFolder(t);
  const plan = { url: 'http://127.0.0.1:9', method: 'GET', path: '/', headers: {} } as const;
  await t.rejects(startWrk({ ...plan, connections: 1, seconds: 1, seed: 1 }), {
    message: /^wrk is not on the PATH/,
  });
});
