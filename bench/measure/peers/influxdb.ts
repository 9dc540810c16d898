import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fixedPorts } from '../../../test/support/free-port.ts';
import { lineFormat } from './formats.ts';
import type { Peer } from './peer.ts';
import { createFolder, missingProgram, startProgram } from './program.ts';

const program = 'influxd';
const database = 'bench';
const countMsMax = 300_000;

export const influxdb: Peer = {
  name: 'InfluxDB',
  caveat:
    'no keys (off by default); checks that it can read a line and that a field keeps its type; syncs ' +
    'its log before the answer (wal-fsync-delay is 0, the default); a repeated body overwrites itself, ' +
    'and so do two entries of one series and microsecond; no counters.',
  missing: () => missingProgram(program),
  async open(lifecycle, { signal }) {
    const dir = createFolder(lifecycle);
    const [port, backupPort] = await fixedPorts(2);
    const url = `http://127.0.0.1:${port}`;
    const file = path.join(dir, 'influxdb.conf');
    writeFileSync(file, configText(dir, port as number, backupPort as number));
    const args = ['-config', file];
    await startProgram(lifecycle, { name: program, args, dir, healthUrl: `${url}/ping` }, signal);
    await query(url, `CREATE DATABASE ${database}`, signal);
    return {
      target: { url, path: `/write?db=${database}&precision=u`, headers: {} },
      format: lineFormat,
      hasSeries: true,
      // Times are random, so a few of ten million entries have the series and time of another one.
      overwrittenShareMax: 0.001,
      countStored: async () =>
        (await query(url, 'SELECT count(down) FROM usage', signal))[0]?.values[0]?.[1] ?? 0,
    };
  },
};

/** The defaults, except for folders and ports, and for limits that 200,000 subscriptions exceed. */
function configText(dir: string, port: number, backupPort: number): string {
  return `reporting-enabled = false
bind-address = "127.0.0.1:${backupPort}"
[meta]
  dir = "${path.join(dir, 'meta')}"
[data]
  dir = "${path.join(dir, 'data')}"
  wal-dir = "${path.join(dir, 'wal')}"
  max-series-per-database = 0
  max-values-per-tag = 0
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:${port}"
  log-enabled = false
[logging]
  level = "error"
`;
}

interface Series {
  values: [string, number][];
}

async function query(url: string, q: string, signal: AbortSignal): Promise<Series[]> {
  const response = await fetch(`${url}/query?db=${database}`, {
    method: 'POST',
    body: new URLSearchParams({ q }),
    signal: AbortSignal.any([signal, AbortSignal.timeout(countMsMax)]),
  });
  const text = await response.text();
  const found = JSON.parse(text) as { results?: { series?: Series[]; error?: string }[] };
  const result = found.results?.[0];
  if (!response.ok || result === undefined || result.error !== undefined) {
    throw new Error(`InfluxDB answers ${response.status}: ${text}`);
  }
  return result.series ?? [];
}
