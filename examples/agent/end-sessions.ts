import { setTimeout as delay } from 'node:timers/promises';
import { readIfThere } from '../../src/durable-file.ts';
import type { Logger } from '../../src/log.ts';
import { replaceInbound } from './change-running.ts';
import type { ProxyRunner } from './proxy.ts';
import type { Running } from './running.ts';
import { cutConnections, dropDatagrams } from './sessions.ts';
import type { Counters } from './xray-api.ts';
import { isUdp, type Tagged } from './xray-config.ts';

const loopback = ['127.0.0.1', '::1'];
/** How long Xray may take to notice that a connection is gone. */
const endMsMax = 3_000;
const pollMs = 50;
/** Counters that stay the same for this long stand still, also on a busy machine. */
const stillMs = 200;
/** A QUIC connection ends after 30 s without a packet, if Core has set nothing else. */
const idleSecondsStandard = 30;

/** Links whose sessions must end, with their inbound. `isMoving`: the counters moved a moment ago. */
export interface Ending {
  uuid: string;
  inbound: Tagged;
  isMoving: boolean;
}

/**
 * Ends the sessions of some links, whose users were removed before. Xray keeps open what it once let in.
 * From the least harm to the most, until Xray names none of them as online:
 * 1. The kernel cuts the TCP connections from the addresses of these links, to their inbound. Others behind
 *    the same address connect again.
 *    For Hysteria2 it drops what comes from these addresses, until the idle timeout has ended the sessions.
 * 2. An inbound of Hysteria2 or Shadowsocks is removed and added again. That ends all its UDP sessions;
 *    clients of Hysteria2 notice it when their idle timeout is over.
 * 3. The kernel cuts every TCP connection to the inbound: a proxy in front may hide the addresses.
 * @returns false if some still go on. Only a restart of the proxy ends them then.
 */
export async function endSessions(
  deps: { runner: ProxyRunner; log: Logger },
  running: Running,
  ending: readonly Ending[],
): Promise<boolean> {
  const inbounds = new Map<string, Ending[]>();
  for (const one of ending) {
    inbounds.set(one.inbound.tag, [...(inbounds.get(one.inbound.tag) ?? []), one]);
  }
  let haveEnded = true;
  for (const group of inbounds.values()) {
    haveEnded = (await endOfInbound(deps, running, group)) && haveEnded;
  }
  return haveEnded;
}

async function endOfInbound(
  { runner, log }: { runner: ProxyRunner; log: Logger },
  running: Running,
  group: readonly Ending[],
): Promise<boolean> {
  const inbound = group[0]?.inbound as Tagged;
  const { tag } = inbound;
  const port = Number(inbound['port']);
  const uuids = group.map(({ uuid }) => uuid);
  const online = await running.api.addressesOf(uuids);
  // Xray does not list who comes from loopback, as everybody behind a web server of this machine does.
  for (const uuid of online.keys()) running.listed.add(uuid);
  const isHidden = group.some(({ uuid, isMoving }) => isMoving && !running.listed.has(uuid));
  if (online.size === 0 && !isHidden) return true;
  const addresses = [...new Set([...online.values()].flat()), ...(isHidden ? loopback : [])];
  const isHysteria = inbound.protocol === 'hysteria';
  if (isHysteria && canCut() && (await dropDatagrams(port, addresses, idleSeconds(inbound) + 5))) {
    // Xray lists these sessions until the timeout, though nothing of them moves any more.
    log.info({ tag, links: uuids.length, addresses: addresses.length }, 'datagrams dropped');
    return true;
  }
  const mayCut = !isHysteria && canCut();
  if (mayCut) {
    await cutConnections(port, addresses);
    log.info({ tag, links: uuids.length, addresses: addresses.length }, 'connections cut');
    if (await areOffline(running, uuids)) return true;
  }
  const stays = running.xray.inbounds.find((one) => one.tag === tag);
  if (isUdp(inbound) && stays !== undefined) {
    await replaceInbound(runner, running, { from: stays, to: stays });
    log.warn({ tag, links: uuids.length }, 'inbound added again, to end sessions of removed links');
    if (await areOffline(running, uuids)) return true;
  }
  if (!mayCut) return false;
  await cutConnections(port, undefined);
  log.warn({ tag, links: uuids.length }, 'all connections of an inbound cut');
  return areOffline(running, uuids);
}

/** The idle timeout of an inbound over QUIC: `streamSettings.finalmask.quicParams.maxIdleTimeout`. */
function idleSeconds(inbound: Tagged): number {
  const { finalmask } = (inbound['streamSettings'] ?? {}) as {
    finalmask?: { quicParams?: { maxIdleTimeout?: number } };
  };
  return finalmask?.quicParams?.maxIdleTimeout ?? idleSecondsStandard;
}

async function areOffline({ api }: Running, uuids: readonly string[]): Promise<boolean> {
  const giveUpAtMs = performance.now() + endMsMax;
  for (;;) {
    const online = await api.addressesOf(uuids);
    if (online.size === 0) return true;
    if (performance.now() > giveUpAtMs) return false;
    await delay(pollMs);
  }
}

/**
 * Closes every inbound and cuts what is open, so that the counters stand still. Then nothing is lost
 * between the last reading and the end of the process. Without the right to cut, some milliseconds are.
 */
export async function drainProxy(running: Running): Promise<void> {
  for (const inbound of running.xray.inbounds) {
    await running.api.removeInbound(inbound.tag).catch(() => undefined);
    if (inbound.protocol !== 'hysteria' && canCut()) {
      await cutConnections(Number(inbound['port']), undefined);
    }
  }
}

/** Reads counters until they stand still, for a short time at most. */
export async function readStill(read: () => Promise<Counters>): Promise<Counters> {
  const giveUpAtMs = performance.now() + endMsMax;
  let counters = await read();
  let movedAtMs = performance.now();
  for (;;) {
    await delay(pollMs);
    const next = await read();
    const nowMs = performance.now();
    if (Object.keys(next).some((name) => next[name] !== counters[name])) movedAtMs = nowMs;
    counters = next;
    if (nowMs - movedAtMs >= stillMs || nowMs > giveUpAtMs) return counters;
  }
}

/** Bit 12 of the effective capabilities is CAP_NET_ADMIN, without which `ss -K` cuts nothing. */
export function canCut(): boolean {
  const status = readIfThere('/proc/self/status') ?? '';
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return ((BigInt(`0x${mask}`) >> 12n) & 1n) === 1n;
}
