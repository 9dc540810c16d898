import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { AppLink } from './app-link.ts';
import { type Child, startChild } from './child.ts';
import { type ReadLink, type ReadStream, readLink } from './read-link.ts';

/** Starts sing-box with a SOCKS inbound for each link. */
export async function startSingBoxClient(
  file: string,
  options: { folder: string; authorityFile: string; links: readonly AppLink[] },
): Promise<Child> {
  const { folder, authorityFile, links } = options;
  const configFile = path.join(folder, 'sing-box-client.json');
  const outbounds = links.map((link) => singBoxOutbound(`out-${link.tag}`, readLink(link.uri)));
  writeFileSync(configFile, JSON.stringify(singBoxConfig(links, outbounds)));
  return startChild({
    file,
    args: ['run', '-c', configFile],
    ready: /sing-box started/,
    logFile: path.join(folder, 'sing-box-client.log'),
    environment: { SSL_CERT_FILE: authorityFile, SSL_CERT_DIR: folder },
    folder,
  });
}

/** https://sing-box.sagernet.org/configuration/ */
function singBoxConfig(links: readonly AppLink[], outbounds: readonly unknown[]) {
  return {
    log: { level: 'info', timestamp: false },
    inbounds: links.map((link) => ({
      type: 'socks',
      tag: `socks-${link.tag}`,
      listen: '127.0.0.1',
      listen_port: link.socksPort,
    })),
    outbounds,
    route: {
      rules: links.map((link) => ({
        inbound: [`socks-${link.tag}`],
        action: 'route',
        outbound: `out-${link.tag}`,
      })),
    },
  };
}

/**
 * An outbound that does what the link says. sing-box itself reads no links.
 * @throws Error for what sing-box does not have.
 */
function singBoxOutbound(tag: string, link: ReadLink): Record<string, unknown> {
  const place = { tag, server: link.host, server_port: link.port };
  switch (link.protocol) {
    case 'vless': {
      const flow = link.flow === undefined ? {} : { flow: link.flow };
      return {
        ...place,
        type: 'vless',
        uuid: link.id,
        ...flow,
        ...streamOf(link.stream, link.host),
      };
    }
    case 'vmess': {
      const security = link.encryption;
      return {
        ...place,
        type: 'vmess',
        uuid: link.id,
        security,
        ...streamOf(link.stream, link.host),
      };
    }
    case 'trojan':
      return {
        ...place,
        type: 'trojan',
        password: link.password,
        ...streamOf(link.stream, link.host),
      };
    case 'shadowsocks':
      return { ...place, type: 'shadowsocks', method: link.method, password: link.password };
    case 'hysteria2': {
      const tls = { enabled: true, server_name: link.sni ?? link.host, alpn: link.alpn ?? ['h3'] };
      return { ...place, type: 'hysteria2', password: link.password, tls };
    }
  }
}

function streamOf(stream: ReadStream, address: string): Record<string, unknown> {
  return { ...transportOf(stream), ...securityOf(stream, address) };
}

function transportOf({ network, path: httpPath, host, serviceName }: ReadStream) {
  const headers = host === undefined ? {} : { headers: { Host: host } };
  if (network === 'tcp') return {};
  if (network === 'ws') return { transport: { type: 'ws', path: httpPath ?? '/', ...headers } };
  if (network === 'grpc') return { transport: { type: 'grpc', service_name: serviceName ?? '' } };
  throw new Error(`sing-box has no ${network}`);
}

function securityOf(stream: ReadStream, address: string): Record<string, unknown> {
  const { security, sni, fingerprint, alpn, publicKey, shortId } = stream;
  if (security === 'none') return {};
  const utls = fingerprint === undefined ? {} : { utls: { enabled: true, fingerprint } };
  const tls = {
    enabled: true,
    server_name: sni ?? address,
    ...(alpn === undefined ? {} : { alpn }),
    ...utls,
  };
  if (security === 'tls') return { tls };
  const reality = { enabled: true, public_key: publicKey, short_id: shortId ?? '' };
  return { tls: { ...tls, reality } };
}
