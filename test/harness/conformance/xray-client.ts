import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { AppLink } from './app-link.ts';
import { type Child, startChild } from './child.ts';
import { type ReadLink, type ReadStream, readLink } from './read-link.ts';

/** Starts Xray as a client with a SOCKS inbound for each link. */
export async function startXrayClient(
  file: string,
  options: { folder: string; authorityFile: string; links: readonly AppLink[] },
): Promise<Child> {
  const { folder, authorityFile, links } = options;
  const configFile = path.join(folder, 'xray-client.json');
  writeFileSync(configFile, JSON.stringify(xrayClientConfig(links)));
  return startChild({
    file,
    args: ['run', '-c', configFile],
    // Inbounds start in their order.
    ready: links.at(-1)?.socksPort ?? 0,
    logFile: path.join(folder, 'xray-client.log'),
    environment: { SSL_CERT_FILE: authorityFile, SSL_CERT_DIR: folder },
  });
}

/** The configuration of an Xray client: https://xtls.github.io/en/config/ */
export function xrayClientConfig(links: readonly AppLink[]): Record<string, unknown> {
  return {
    log: { loglevel: 'info' },
    inbounds: links.map((link) => ({
      tag: `socks-${link.tag}`,
      listen: '127.0.0.1',
      port: link.socksPort,
      protocol: 'socks',
      settings: { auth: 'noauth', udp: true },
    })),
    outbounds: links.map(({ tag, uri, mux }) => ({
      ...xrayOutbound(`out-${tag}`, readLink(uri)),
      ...(mux === undefined ? {} : { mux: { enabled: true, ...mux } }),
    })),
    routing: {
      rules: links.map((link) => ({
        inboundTag: [`socks-${link.tag}`],
        outboundTag: `out-${link.tag}`,
      })),
    },
  };
}

/** An outbound that does what the link says, and nothing that it does not say. */
export function xrayOutbound(tag: string, link: ReadLink): Record<string, unknown> {
  const place = { address: link.host, port: link.port };
  switch (link.protocol) {
    case 'vless': {
      const { id, encryption, flow, stream } = link;
      const user = { id, encryption, ...(flow === undefined ? {} : { flow }) };
      const settings = { vnext: [{ ...place, users: [user] }] };
      return { tag, protocol: 'vless', settings, streamSettings: streamOf(stream, link.host) };
    }
    case 'vmess': {
      const settings = {
        vnext: [{ ...place, users: [{ id: link.id, security: link.encryption }] }],
      };
      const streamSettings = streamOf(link.stream, link.host);
      return { tag, protocol: 'vmess', settings, streamSettings };
    }
    case 'trojan': {
      const settings = { servers: [{ ...place, password: link.password }] };
      const streamSettings = streamOf(link.stream, link.host);
      return { tag, protocol: 'trojan', settings, streamSettings };
    }
    case 'shadowsocks': {
      const { method, password } = link;
      return {
        tag,
        protocol: 'shadowsocks',
        settings: { servers: [{ ...place, method, password }] },
      };
    }
    case 'hysteria2':
      return hysteriaOutbound(tag, link);
  }
}

function hysteriaOutbound(
  tag: string,
  link: Extract<ReadLink, { protocol: 'hysteria2' }>,
): Record<string, unknown> {
  const { host, port, password: auth, sni, alpn = ['h3'], pin } = link;
  const tlsSettings = {
    serverName: sni ?? host,
    alpn,
    ...(pin === undefined ? {} : { pinnedPeerCertSha256: pinOf(pin) }),
  };
  return {
    tag,
    protocol: 'hysteria',
    settings: { version: 2, address: host, port },
    streamSettings: {
      network: 'hysteria',
      security: 'tls',
      hysteriaSettings: { version: 2, auth },
      tlsSettings,
    },
  };
}

function streamOf(stream: ReadStream, address: string): Record<string, unknown> {
  const { network, security } = stream;
  return {
    network: network === 'tcp' ? 'raw' : network,
    security,
    ...transportOf(stream),
    ...(security === 'tls' ? { tlsSettings: tlsOf(stream, address) } : {}),
    ...(security === 'reality' ? { realitySettings: realityOf(stream) } : {}),
  };
}

function transportOf(stream: ReadStream): Record<string, unknown> {
  const { network, path: httpPath = '/', host, mode, serviceName = '', authority, extra } = stream;
  const named = host === undefined ? {} : { host };
  if (network === 'ws') return { wsSettings: { path: httpPath, ...named } };
  if (network === 'grpc') {
    const multiMode = mode === 'multi';
    const asked = authority === undefined ? {} : { authority };
    return { grpcSettings: { serviceName, multiMode, ...asked } };
  }
  if (network !== 'xhttp') return {};
  const further = extra === undefined ? {} : { extra: JSON.parse(extra) as unknown };
  return { xhttpSettings: { path: httpPath, mode: mode ?? 'auto', ...named, ...further } };
}

function tlsOf({ sni, fingerprint, alpn, pin }: ReadStream, address: string) {
  return {
    serverName: sni ?? address,
    ...(fingerprint === undefined ? {} : { fingerprint }),
    ...(alpn === undefined ? {} : { alpn }),
    ...(pin === undefined ? {} : { pinnedPeerCertSha256: pinOf(pin) }),
  };
}

function realityOf(stream: ReadStream) {
  const { sni, fingerprint, publicKey, shortId, spiderX, mldsa65Verify } = stream;
  return {
    serverName: sni,
    fingerprint,
    publicKey,
    shortId: shortId ?? '',
    ...(spiderX === undefined ? {} : { spiderX }),
    ...(mldsa65Verify === undefined ? {} : { mldsa65Verify }),
  };
}

/** Links write a pin with or without colons. */
function pinOf(pin: string): string {
  return pin.replaceAll(':', '').toLowerCase();
}
