import type { VpnProtocol } from '../contract/enums.ts';
import { toCoreError } from '../errors.ts';
import { isLocal } from './addresses.ts';
import { type ProtocolSettings, parseProtocolSettings } from './settings.ts';
import { boundsOf } from './xhttp.ts';

// What an operator should know of settings that are right: whom they lock out, and what they
// cost. docs/protocols.md has the runs that show it.

/** The version that a client says in its REALITY handshake. */
const saidBy = { 'sing-box': '1.8.1', mihomo: '1.8.2' } as const;
/** What Xray takes for an absent `minClientVer`, and from which version of the node on. */
const impliedMinimum = { version: '26.3.27', from: '26.7.11' } as const;

/** Warnings about stored settings, a sentence or two each, and what to change. */
export function warningsOf(protocol: VpnProtocol, settings: unknown): string[] {
  try {
    return warningsOfParsed(protocol, settings);
  } catch (thrown) {
    // An earlier version of Core may have stored what this one refuses.
    const { code, message } = toCoreError(thrown);
    if (code !== 'INVALID_ARGUMENT') throw thrown;
    return [`Core cannot render these settings, so its node gets no new revision. ${message}`];
  }
}

function warningsOfParsed(protocol: VpnProtocol, settings: unknown): string[] {
  switch (protocol) {
    case 'VLESS': {
      const given = parseProtocolSettings('VLESS', settings);
      return [...realityWarnings(given), ...visionWarnings(given), ...streamWarnings(given)];
    }
    case 'TROJAN':
      return streamWarnings(parseProtocolSettings('TROJAN', settings));
    case 'VMESS': {
      const given = parseProtocolSettings('VMESS', settings);
      return [...proxyWarnings(given), ...headWarnings(given)];
    }
    case 'HYSTERIA2':
    case 'SHADOWSOCKS':
    case 'MTPROTO':
      return [];
  }
}

/** A client that is too old gets the web site of the target, and no error that says why. */
function realityWarnings({ reality }: ProtocolSettings['VLESS']): string[] {
  if (reality === undefined) return [];
  const { minClientVer, maxClientVer } = reality;
  const warnings: string[] = [];
  if (minClientVer === undefined) {
    const { version, from } = impliedMinimum;
    warnings.push(
      `Without reality.minClientVer, Xray from ${from} on locks out clients that say a version before ${version}: older Xray, sing-box (says ${saidBy['sing-box']}) and mihomo (says ${saidBy.mihomo}). To let them in, set it to 1.8.0.`,
    );
  } else {
    const locked = clientsApart((said) => compared(said, minClientVer) < 0);
    if (locked !== '') {
      warnings.push(
        `reality.minClientVer ${minClientVer} locks out ${locked}: 1.8.0 lets them in.`,
      );
    }
  }
  if (maxClientVer === undefined) return warnings;
  const locked = clientsApart((said) => compared(said, maxClientVer) > 0);
  const also = locked === '' ? '' : `, ${locked}`;
  warnings.push(`reality.maxClientVer ${maxClientVer} locks out newer Xray${also}.`);
  return warnings;
}

function clientsApart(isApart: (said: string) => boolean): string {
  return Object.entries(saidBy)
    .filter(([, said]) => isApart(said))
    .map(([client, said]) => `${client} (says ${said})`)
    .join(' and ');
}

/** Below 0 if the first version is the older one. */
function compared(one: string, other: string): number {
  const [left, right] = [one, other].map((version) => version.split('.').map(Number));
  for (let index = 0; index < 3; index += 1) {
    const difference = (left?.[index] ?? 0) - (right?.[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function visionWarnings({ splice }: ProtocolSettings['VLESS']): string[] {
  if (splice !== true) return [];
  return [
    'With splice, traffic counts when a connection ends: a limit does not bite during a download, and a killed Xray loses the count. Xray splices only if every protocol of the node with a flow has it.',
  ];
}

type Stream = ProtocolSettings['VLESS'] | ProtocolSettings['TROJAN'] | ProtocolSettings['VMESS'];

/** VLESS and Trojan do not encrypt. VMess does, so it needs no TLS. */
function streamWarnings(settings: Stream): string[] {
  const warnings = [...proxyWarnings(settings), ...headWarnings(settings)];
  const isEncrypted = 'decryption' in settings && settings.decryption !== undefined;
  const hasFace = settings.faces?.every((face) => face.security === 'tls') === true;
  if (settings.security === 'none' && !isEncrypted && !hasFace && !isLocal(settings.listen)) {
    warnings.push(
      'Without TLS everybody on the way reads the traffic, and clients with Xray from 26.7.11 on refuse the link. Set security, or faces if a proxy in front ends TLS.',
    );
  }
  return warnings;
}

/** What Xray takes for absent fields of XHTTP. */
const postBytesImplied = 1_000_000;
const headBytesImplied = 8_192;

/** A post whose bytes are in the head of its request has to fit into that. */
function headWarnings({ xhttp }: Stream): string[] {
  const { uplinkDataPlacement, scMaxEachPostBytes, serverMaxHeaderBytes } = xhttp?.extra ?? {};
  if (uplinkDataPlacement !== 'header' && uplinkDataPlacement !== 'cookie') return [];
  const [, postBytes] = boundsOf(scMaxEachPostBytes ?? postBytesImplied);
  const headBytes = serverMaxHeaderBytes || headBytesImplied;
  // Base64 makes four bytes of three.
  if ((postBytes * 4) / 3 < headBytes) return [];
  return [
    `With uplinkDataPlacement ${uplinkDataPlacement}, a post is in the head of a request. Up to ${postBytes} bytes (scMaxEachPostBytes) do not fit into ${headBytes} (serverMaxHeaderBytes), so uploads break. Set scMaxEachPostBytes to 4000.`,
  ];
}

function proxyWarnings({ network, listen, sockopt }: Stream): string[] {
  if (network === 'raw' || !isLocal(listen) || sockopt?.acceptProxyProtocol === true) return [];
  if (sockopt?.trustedXForwardedFor !== undefined) return [];
  return [
    'Xray from 26.6.22 on takes the address of the proxy in front for that of every client. Set sockopt.trustedXForwardedFor to a header that only the proxy sets, for instance ["X-Forwarded-For"] if the proxy always replaces it.',
  ];
}
