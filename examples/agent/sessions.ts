import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { isIP } from 'node:net';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Addresses in one filter of `ss`, whose command line is bounded. */
const addressesMax = 100;
const commandMsMax = 10_000;
const outputBytesMax = 67_108_864;

/**
 * Cuts TCP connections to a port of this machine, by `ss -K` of iproute2. The kernel resets them, and the
 * proxy sees an error. Xray itself has no call that ends the sessions of one user.
 * @param addresses of the other side; undefined cuts every connection to the port.
 * @returns whether `ss` ran. It cuts nothing, and says so nowhere, if the agent lacks CAP_NET_ADMIN or if the
 * kernel was built without CONFIG_INET_DIAG_DESTROY. So the caller looks whether the sessions have ended.
 */
export async function cutConnections(
  port: number,
  addresses: readonly string[] | undefined,
): Promise<boolean> {
  if (addresses === undefined) return ss(['-K', '-Htn', ...toPort(port)]);
  const known = plain(addresses);
  let hasRun = true;
  for (let from = 0; from < known.length; from += addressesMax) {
    const part = known.slice(from, from + addressesMax);
    const peers = part.flatMap((address, index) => [
      ...(index === 0 ? [] : ['or']),
      ...['dst', isIP(address) === 6 ? `[${address}]` : address],
    ]);
    hasRun = (await ss(['-K', '-Htn', ...toPort(port), 'and', '(', ...peers, ')'])) && hasRun;
  }
  return hasRun;
}

/**
 * Drops what comes over UDP from these addresses to a port, for a time, by `nft`. A QUIC connection then ends by
 * its idle timeout, and what it was sending stops at once, because no acknowledgement comes. All of it is in
 * a table of its own, `inet core_agent`, whose elements the kernel removes by itself.
 * @returns false if `nft` is missing, or may not or cannot do it.
 */
export async function dropDatagrams(
  port: number,
  addresses: readonly string[],
  seconds: number,
): Promise<boolean> {
  const table = 'inet core_agent';
  const sets = [
    { set: 'cut4', type: 'ipv4_addr', family: 'ip', version: 4 },
    { set: 'cut6', type: 'ipv6_addr', family: 'ip6', version: 6 },
  ];
  const lines = [
    `add table ${table}`,
    `add chain ${table} input { type filter hook input priority -10; policy accept; }`,
    `flush chain ${table} input`,
  ];
  for (const { set, type, family, version } of sets) {
    const known = plain(addresses).filter((address) => isIP(address) === version);
    const elements = known.map((address) => `${address} . ${port} timeout ${seconds}s`);
    lines.push(
      `add set ${table} ${set} { type ${type} . inet_service; flags timeout; }`,
      `add rule ${table} input ${family} saddr . udp dport @${set} drop`,
      ...(elements.length === 0 ? [] : [`add element ${table} ${set} { ${elements.join(', ')} }`]),
    );
  }
  try {
    const nft = spawn('nft', ['-f', '-'], { stdio: ['pipe', 'ignore', 'ignore'] });
    nft.stdin.on('error', () => undefined).end(`${lines.join('\n')}\n`);
    const [code] = await once(nft, 'exit', { signal: AbortSignal.timeout(commandMsMax) });
    return code === 0;
  } catch {
    return false;
  }
}

/** Xray writes an IPv6 address in brackets. What is no address is left out. */
function plain(addresses: readonly string[]): string[] {
  return addresses
    .map((address) => address.replace(/^\[|\]$/g, ''))
    .filter((address) => isIP(address) !== 0);
}

function toPort(port: number): string[] {
  return ['state', 'connected', 'sport', '=', `:${port}`];
}

async function ss(args: readonly string[]): Promise<boolean> {
  try {
    await run('ss', args, { timeout: commandMsMax, maxBuffer: outputBytesMax });
    return true;
  } catch {
    return false;
  }
}
