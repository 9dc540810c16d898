import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Series } from './metric.ts';
import { type Plot, plotSvg } from './svg.ts';

const plots: Record<Series['plot'], Omit<Plot, 'lines'> & { file: string }> = {
  batch: {
    file: 'throughput-batch',
    title: 'Throughput against batch size',
    xLabel: 'entries a request',
    yLabel: 'entries a second',
    xScale: 'log',
  },
  peers: {
    file: 'peers',
    title: 'The same entries into Core and into its peers',
    xLabel: 'entries a request',
    yLabel: 'entries a second',
    xScale: 'log',
  },
  'nodes-throughput': {
    file: 'throughput-nodes',
    title: 'Throughput against number of nodes',
    xLabel: 'nodes',
    yLabel: 'entries a second',
    xScale: 'log',
  },
  'nodes-cpu': {
    file: 'cpu-nodes',
    title: 'CPU an entry against number of nodes, same total rate',
    xLabel: 'nodes',
    yLabel: 'microseconds of CPU',
    xScale: 'log',
  },
  backlog: {
    file: 'backlog',
    title: 'Backlog of a sustained run: rows accepted and not yet settled',
    xLabel: 'seconds',
    yLabel: 'rows',
    xScale: 'linear',
  },
};

/**
 * Draws a plot for each kind of series, over the plot of an earlier run. The file name of a quick
 * run's plot ends with `-quick`. Returns the files.
 */
export function writePlots(series: readonly Series[], quick: boolean, dir: string): string[] {
  mkdirSync(dir, { recursive: true });
  return Object.entries(plots).flatMap(([kind, { file, ...plot }]) => {
    const lines = series.filter((one) => one.plot === kind && one.points.length > 0);
    if (lines.length === 0) return [];
    const target = path.join(dir, `${file}${quick ? '-quick' : ''}.svg`);
    writeFileSync(target, plotSvg({ ...plot, lines }));
    return [target];
  });
}
