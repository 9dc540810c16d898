import { canonicalIp, isUnixSocket, socketName } from './addresses.ts';
import { isObject, namesLike } from './raw.ts';

// Where the inbounds of a node's `raw` listen. Xray starts with two inbounds on one port, and Linux deals the
// connections out between them, so neither Xray nor its test of a configuration says a word.

type Json = Record<string, unknown>;
export type PortTransport = 'tcp' | 'udp';

export interface RawListener {
  /** The tag of the inbound; `metrics` for Xray's page of counters. */
  tag: string;
  /** An address or a unix socket, in one spelling. */
  listen: string;
  /** From and to, both included. None for a unix socket, and if only the node knows the port. */
  ports: (readonly [number, number])[];
  transports: PortTransport[];
}

/** @param raw The `raw` of a node's settings of Xray. */
export function rawListeners(raw: Json | undefined): RawListener[] {
  if (raw === undefined) return [];
  const inbounds = raw['inbounds'];
  const listeners = Array.isArray(inbounds) ? inbounds.filter(isObject).map(listenerOf) : [];
  const metrics = fieldOf(fieldOf(raw, 'metrics'), 'listen');
  const found = typeof metrics === 'string' ? /^(.*):(\d{1,5})$/.exec(metrics) : null;
  if (found !== null) {
    const [, host = '', port] = found;
    const listen = host === '' ? '0.0.0.0' : canonicalIp(host.replace(/^\[(.*)\]$/, '$1'));
    const ports = [[Number(port), Number(port)] as const];
    listeners.push({ tag: 'metrics', listen, ports, transports: ['tcp'] });
  }
  return listeners;
}

/** Whether a listener has a port, on any address. */
export function hasPort({ ports }: Pick<RawListener, 'ports'>, port: number): boolean {
  return ports.some(([from, to]) => from <= port && port <= to);
}

function listenerOf(inbound: Json): RawListener {
  const listen = fieldOf(inbound, 'listen');
  const address = typeof listen === 'string' && listen !== '' ? listen : '0.0.0.0';
  const isSocket = isUnixSocket(address);
  return {
    tag: String(inbound['tag']),
    listen: isSocket ? socketName(address) : canonicalIp(address),
    ports: isSocket ? [] : portsOf(fieldOf(inbound, 'port')),
    transports: transportsOf(inbound),
  };
}

/** Xray takes `443`, `"443"`, `"1000-2000"` and lists of them with commas; `env:NAME` is for the node to know. */
function portsOf(port: unknown): [number, number][] {
  return String(port)
    .split(',')
    .flatMap((part) => {
      const found = /^\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?$/.exec(part);
      if (found === null) return [];
      const from = Number(found[1]);
      return [[from, Number(found[2] ?? from)] as [number, number]];
    });
}

function transportsOf(inbound: Json): PortTransport[] {
  const settings = fieldOf(inbound, 'settings');
  switch (String(fieldOf(inbound, 'protocol')).toLowerCase()) {
    case 'tun':
      return [];
    case 'wireguard':
    case 'hysteria':
      return ['udp'];
    case 'socks':
    case 'mixed':
      return fieldOf(settings, 'udp') === true ? ['tcp', 'udp'] : ['tcp'];
    case 'shadowsocks':
      return networksOf(fieldOf(settings, 'network'));
    case 'dokodemo-door':
    case 'tunnel':
      return networksOf(fieldOf(settings, 'network') ?? fieldOf(settings, 'allowedNetwork'));
    default:
      return [streamTransport(fieldOf(inbound, 'streamSettings'))];
  }
}

/** Xray takes TCP for an absent list. */
function networksOf(given: unknown): PortTransport[] {
  const names = (Array.isArray(given) ? given : String(given ?? 'tcp').split(',')).map((name) =>
    String(name).trim().toLowerCase(),
  );
  return (['tcp', 'udp'] as const).filter((name) => names.includes(name));
}

function streamTransport(stream: unknown): PortTransport {
  const network = String(fieldOf(stream, 'method') ?? fieldOf(stream, 'network') ?? 'raw');
  if (/^(kcp|mkcp|quic|hysteria)$/i.test(network)) return 'udp';
  if (!/^(xhttp|splithttp)$/i.test(network)) return 'tcp';
  const alpn = fieldOf(fieldOf(stream, 'tlsSettings'), 'alpn');
  return Array.isArray(alpn) && alpn.length === 1 && alpn[0] === 'h3' ? 'udp' : 'tcp';
}

/** The value that Xray takes for a field: of two spellings the later one. */
function fieldOf(object: unknown, field: string): unknown {
  if (!isObject(object)) return undefined;
  const name = namesLike(object, field).at(-1);
  return name === undefined ? undefined : object[name];
}
