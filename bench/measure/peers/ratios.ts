import { tableText } from '../../../src/cli/table.ts';
import type { Metric, Series } from '../metric.ts';
import { median } from '../statistics.ts';
import { numberText } from '../table.ts';
import type { Rate } from './peer.ts';

/** The names of Core's own rates. */
interface CoreNames {
  alone: string;
  withWorker: string;
}

/** By peer and entries a request: how many times the peer's rate Core alone has to reach. */
type RatioTargets = Record<string, ReadonlyMap<number, number>>;

/** Medians over the rounds by peer and batch size, in the order of `names`. */
export function medianRates(names: readonly string[], rates: readonly Rate[]): Rate[] {
  return names.flatMap((name) => {
    const own = rates.filter((rate) => rate.name === name);
    const sizes = [...new Set(own.map(({ entries }) => entries))].sort((a, b) => a - b);
    return sizes.map((entries) => {
      const values = own.filter((rate) => rate.entries === entries);
      const entriesPerSecond = median(values.map((rate) => rate.entriesPerSecond));
      return { name, entries, entriesPerSecond };
    });
  });
}

/** Core ÷ peer; undefined if Core was not measured at this size or if the peer reached nothing. */
function ratio(medians: readonly Rate[], core: string, peer: Rate): number | undefined {
  const found = medians.find(({ name, entries }) => name === core && entries === peer.entries);
  if (found === undefined || peer.entriesPerSecond === 0) return undefined;
  return found.entriesPerSecond / peer.entriesPerSecond;
}

/** Each rate, and the ratio of Core to each peer. */
export function peerMetrics(
  medians: readonly Rate[],
  core: CoreNames,
  targets: RatioTargets,
): Metric[] {
  const isCore = (name: string): boolean => name === core.alone || name === core.withWorker;
  const rates = medians.map(
    ({ name, entries, entriesPerSecond }): Metric => ({
      bench: 'peers',
      name: `${name}, ${entries} a request`,
      value: entriesPerSecond,
      unit: 'entries/s',
      better: isCore(name) ? 'higher' : 'none',
    }),
  );
  const ratios = medians
    .filter(({ name }) => !isCore(name))
    .flatMap((peer) =>
      [core.alone, core.withWorker].flatMap((name): Metric[] => {
        const value = ratio(medians, name, peer);
        if (value === undefined) return [];
        const min = name === core.alone ? targets[peer.name]?.get(peer.entries) : undefined;
        return [
          {
            bench: 'peers',
            name: `${name} ÷ ${peer.name}, ${peer.entries} a request`,
            value,
            unit: 'times',
            better: 'higher',
            ...(min === undefined ? {} : { target: { min } }),
          },
        ];
      }),
    );
  return [...rates, ...ratios];
}

/** A row for each peer and batch size. */
export function ratioTable(medians: readonly Rate[], core: CoreNames): string {
  const rows = medians.map((rate) => {
    const shown = [core.alone, core.withWorker].map((name) => {
      const value = ratio(medians, name, rate);
      return value === undefined ? '' : numberText(value);
    });
    return [rate.name, rate.entries, numberText(rate.entriesPerSecond), ...shown];
  });
  const columns = ['peer', 'a request', 'entries/s', 'Core alone ÷', 'Core with worker ÷'];
  return tableText(columns, rows);
}

/** A line for each peer. */
export function peerSeries(medians: readonly Rate[]): Series[] {
  return [...new Set(medians.map(({ name }) => name))].map((label) => ({
    bench: 'peers',
    plot: 'peers',
    label,
    points: medians
      .filter(({ name }) => name === label)
      .map(({ entries, entriesPerSecond }) => ({ x: entries, y: entriesPerSecond })),
  }));
}
