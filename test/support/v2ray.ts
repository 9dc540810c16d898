import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Test } from 'tap';

/** A link as a client of the proxy uses it. The traffic of the SOCKS port takes it. */
export interface ClientLink {
  tag: string;
  socksPort: number;
  port: number;
  protocol: 'VLESS' | 'VMESS' | 'TROJAN';
  network: 'tcp' | 'ws';
  path?: string;
  uuid: string;
}

const run = promisify(execFile);
const endMsMax = 30_000;

/**
 * Returns what a program of Debian's `v2ray` package prints.
 * @throws Error with its output if it fails, or with the package to install if it is missing. If the test
 * were skipped then, nobody would notice that nothing was tested.
 */
export async function runV2ray(program: 'v2ray' | 'v2ctl', args: string[]): Promise<string> {
  try {
    const { stdout } = await run(program, args, { timeout: endMsMax });
    return stdout;
  } catch (thrown) {
    const failure = thrown as { code?: unknown; stdout?: string; stderr?: string };
    if (failure.code === 'ENOENT') {
      throw new Error(`${program} is not on the PATH: apt-get install v2ray`, { cause: thrown });
    }
    const printed = `${failure.stdout ?? ''}${failure.stderr ?? ''}`;
    throw new Error(`${program} ${args.join(' ')} failed: ${printed}`, { cause: thrown });
  }
}

/** Runs v2ray as a client with a SOCKS inbound for each link. The teardown stops it. */
export async function startV2rayClient(
  t: Test,
  folder: string,
  links: readonly ClientLink[],
): Promise<void> {
  const file = path.join(folder, 'client.json');
  writeFileSync(
    file,
    JSON.stringify({
      log: { loglevel: 'warning', access: 'none' },
      inbounds: links.map((link) => ({
        tag: `socks-${link.tag}`,
        listen: '127.0.0.1',
        port: link.socksPort,
        protocol: 'socks',
        settings: { auth: 'noauth', udp: false },
      })),
      outbounds: links.map(outbound),
      routing: {
        rules: links.map((link) => ({
          type: 'field',
          inboundTag: [`socks-${link.tag}`],
          outboundTag: `out-${link.tag}`,
        })),
      },
    }),
  );
  const client = spawn('v2ray', ['-config', file], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(client, 'exit');
  t.teardown(async () => {
    client.kill('SIGKILL');
    await exited;
  });
  let said = '';
  for await (const chunk of client.stdout) {
    said += String(chunk);
    if (/V2Ray [\d.]+ started/.test(said)) break;
  }
  if (!/started/.test(said)) throw new Error(`the v2ray client did not start: ${said}`);
}

function outbound(link: ClientLink): Record<string, unknown> {
  const place = { address: '127.0.0.1', port: link.port };
  const users = {
    VLESS: { id: link.uuid, encryption: 'none' },
    VMESS: { id: link.uuid, alterId: 0, security: 'auto' },
  };
  const isTrojan = link.protocol === 'TROJAN';
  return {
    tag: `out-${link.tag}`,
    protocol: link.protocol.toLowerCase(),
    settings:
      link.protocol === 'TROJAN'
        ? { servers: [{ ...place, password: link.uuid }] }
        : { vnext: [{ ...place, users: [users[link.protocol]] }] },
    streamSettings: {
      network: link.network,
      security: isTrojan ? 'tls' : 'none',
      ...(isTrojan ? { tlsSettings: { serverName: 'localhost', allowInsecure: true } } : {}),
      ...(link.network === 'ws' ? { wsSettings: { path: link.path } } : {}),
    },
  };
}
