import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { VpnProtocol } from '../src/contract/enums.ts';
import type { NodeRows } from '../src/render/load.ts';
import { validateProtocolSettings } from '../src/render/protocol-settings.ts';
import { renderNodeConfigJson } from '../src/render/render.ts';

const compress = promisify(gzip);

export interface RenderResult {
  protocol: VpnProtocol;
  clients: number;
  jsonBytes: number;
  /** Rows to the bytes of JSON: the median of the rounds, and the slowest. */
  renderMs: number;
  renderMsMax: number;
  /** Processor time of the same, which other work on the machine does not stretch: the median. */
  renderCpuMs: number;
  /** In a thread of its own, beside whatever else the process does. */
  gzipMs: number;
  gzipBytes: number;
}

const protocols: { protocol: VpnProtocol; settings: object }[] = [
  { protocol: 'VLESS', settings: {} },
  { protocol: 'TROJAN', settings: {} },
  { protocol: 'SHADOWSOCKS', settings: {} },
  { protocol: 'MTPROTO', settings: {} },
];

/** Renders a node of that many clients, on one protocol after another. Needs no store. */
export async function run(
  options: { clients?: number; rounds?: number } = {},
): Promise<RenderResult[]> {
  const { clients = 100_000, rounds = 9 } = options;
  const results: RenderResult[] = [];
  for (const { protocol, settings } of protocols) {
    const rows = nodeRows(protocol, validateProtocolSettings(protocol, settings), clients);
    results.push(await measure(rows, protocol, rounds));
  }
  return results;
}

async function measure(
  rows: NodeRows,
  protocol: VpnProtocol,
  rounds: number,
): Promise<RenderResult> {
  const timesMs: number[] = [];
  const cpuTimesMs: number[] = [];
  let json: Buffer = Buffer.alloc(0);
  for (let round = 0; round < rounds; round += 1) {
    const startMs = performance.now();
    const cpuStart = process.cpuUsage();
    json = renderNodeConfigJson(rows);
    timesMs.push(performance.now() - startMs);
    const cpu = process.cpuUsage(cpuStart);
    cpuTimesMs.push((cpu.user + cpu.system) / 1_000);
  }
  const gzipStartMs = performance.now();
  const packed = await compress(json, { level: 1 });
  return {
    protocol,
    clients: rows.links.length,
    jsonBytes: json.length,
    renderMs: median(timesMs),
    renderMsMax: Math.max(...timesMs),
    renderCpuMs: median(cpuTimesMs),
    gzipMs: performance.now() - gzipStartMs,
    gzipBytes: packed.length,
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

/** Links come sorted by UUID, as Postgres hands them over. */
function nodeRows(protocol: VpnProtocol, settings: unknown, clients: number): NodeRows {
  const uuids = Array.from({ length: clients }, () => randomUUID()).sort();
  return {
    node: { id: 1, host: 'node.example', ip: '192.0.2.1', revision: 1 },
    protocols: [{ id: 1, protocol, port: 443, settings }],
    outbounds: [],
    rules: [],
    links: uuids.map((uuid, index) => ({
      uuid,
      nodeProtocolId: 1,
      userId: index + 1,
      subscriptionId: index + 1,
    })),
  };
}
