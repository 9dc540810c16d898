import { batchSizes } from './accept.ts';
import { type BenchOptions, emptyMeasured, type Measured, sizesOf } from './metric.ts';
import { clickhouse } from './peers/clickhouse.ts';
import { coreAlone, coreWithWorker, measureCore } from './peers/core.ts';
import { fastifyAndPostgres } from './peers/fastify.ts';
import { influxdb } from './peers/influxdb.ts';
import type { Peer, Rate, Turn } from './peers/peer.ts';
import { medianRates, peerMetrics, peerSeries, ratioTable } from './peers/ratios.ts';
import { measurePeer, type TurnPlan } from './peers/turn.ts';
import { victoriaMetrics } from './peers/victoria-metrics.ts';
import { rotated } from './timing.ts';

const peers: readonly Peer[] = [victoriaMetrics, influxdb, fastifyAndPostgres, clickhouse];
const core = { alone: coreAlone, withWorker: coreWithWorker };
const targets = {
  [victoriaMetrics.name]: new Map([
    [10, 1.5],
    [100, 3],
    [500, 3],
  ]),
};

/**
 * The same entries into Core and into what could be used instead, one server at a time. Each server has one
 * turn a round, and each round begins with another server. So a slow moment of the machine does not always
 * meet the same one. The output names every peer that is missing.
 */
export async function measurePeers(options: BenchOptions): Promise<Measured> {
  const measured = emptyMeasured();
  const there = peers.filter((peer) => peer.missing() === undefined);
  for (const peer of peers.filter((one) => !there.includes(one))) {
    options.say(`${peer.name} is left out: ${peer.missing()}`);
  }
  const contenders: ((turn: TurnPlan) => Promise<Turn>)[] = [
    (turn) => measureCore(options, turn),
    ...there.map((peer) => (turn: TurnPlan) => measurePeer(peer, options, turn)),
  ];
  const rates: Rate[] = [];
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const measure of rotated(contenders, round - 1)) {
      options.signal.throwIfAborted();
      const turn = await measure({ round, batchSizes: sizesOf(options, batchSizes) });
      rates.push(...turn.rates);
      measured.checks.push(...turn.checks);
      for (const { name, entries, entriesPerSecond } of turn.rates) {
        const rate = Math.round(entriesPerSecond);
        options.say(`round ${round}: ${name}, ${entries} a request: ${rate} entries/s`);
      }
    }
  }
  const names = [coreAlone, coreWithWorker, ...there.map(({ name }) => name)];
  const medians = medianRates(names, rates);
  measured.metrics.push(...peerMetrics(medians, core, targets));
  measured.series.push(...peerSeries(medians));
  measured.texts.push(ratioTable(medians, core), notes());
  return measured;
}

function notes(): string {
  const lines = peers.map((peer) => {
    const missing = peer.missing();
    return `  ${peer.name}: ${missing === undefined ? peer.caveat : `not measured, ${missing}`}\n`;
  });
  return (
    'Core checks a key and every field, answers after Redis has synced the rows, and counts a repeated\n' +
    `body once. The others:\n${lines.join('')}`
  );
}
