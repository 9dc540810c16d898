import path from 'node:path';
import { fixedPorts } from '../../../test/support/free-port.ts';
import { lineFormat } from './formats.ts';
import type { Peer } from './peer.ts';
import { createFolder, missingProgram, startProgram } from './program.ts';

const program = 'victoria-metrics';
const countMsMax = 300_000;

export const victoriaMetrics: Peer = {
  name: 'VictoriaMetrics',
  caveat:
    'no keys; skips a wrong line and still answers 204; no fsync before the answer (rows are in ' +
    'memory for seconds); stores a repeated body twice; no counters. What it stored can be counted ' +
    'only after a flush.',
  missing: () => missingProgram(program),
  async open(lifecycle, { signal }) {
    const dir = createFolder(lifecycle);
    const [port] = await fixedPorts(1);
    const url = `http://127.0.0.1:${port}`;
    const args = [
      `-httpListenAddr=127.0.0.1:${port}`,
      `-storageDataPath=${path.join(dir, 'data')}`,
      '-loggerLevel=ERROR',
      // These two limit queries only. The count reads every series at once.
      '-search.maxUniqueTimeseries=10000000',
      '-search.maxQueryDuration=5m',
    ];
    await startProgram(lifecycle, { name: program, args, dir, healthUrl: `${url}/health` }, signal);
    return {
      target: { url, path: '/write?precision=u', headers: {} },
      format: lineFormat,
      hasSeries: true,
      overwrittenShareMax: 0,
      async countStored() {
        await ask(`${url}/internal/force_flush`, signal);
        // An entry is one value in each of two series, so the smaller count is that of whole entries.
        const up = await countValues(url, 'usage_up', signal);
        return Math.min(up, await countValues(url, 'usage_down', signal));
      },
    };
  },
};

async function countValues(url: string, name: string, signal: AbortSignal): Promise<number> {
  const query = encodeURIComponent(`sum(count_over_time(${name}[6h]))`);
  const text = await ask(`${url}/api/v1/query?query=${query}&nocache=1`, signal);
  const found = JSON.parse(text) as { data: { result: { value: [number, string] }[] } };
  return Number(found.data.result[0]?.value[1] ?? 0);
}

async function ask(url: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, {
    signal: AbortSignal.any([signal, AbortSignal.timeout(countMsMax)]),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`VictoriaMetrics answers ${response.status}: ${text}`);
  return text;
}
