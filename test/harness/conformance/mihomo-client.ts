import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { stringify } from 'yaml';
import type { AppLink } from './app-link.ts';
import { type Child, startChild } from './child.ts';

/**
 * Starts mihomo with a SOCKS listener for each link. mihomo reads the links itself: each is a list of one in
 * Base64, as a subscription serves it.
 */
export async function startMihomoClient(
  file: string,
  options: { folder: string; authorityFile: string; links: readonly AppLink[] },
): Promise<Child> {
  const { folder, authorityFile, links } = options;
  for (const { tag, uri } of links) {
    writeFileSync(path.join(folder, `${tag}.txt`), Buffer.from(uri).toString('base64'));
  }
  const configFile = path.join(folder, 'mihomo.yaml');
  writeFileSync(configFile, stringify(mihomoConfig(links)));
  return startChild({
    file,
    args: ['-d', folder, '-f', configFile],
    ready:
      /Start initial compatible provider|SOCKS\[.*\] proxy listening|Initial configuration complete/,
    logFile: path.join(folder, 'mihomo-client.log'),
    environment: { SSL_CERT_FILE: authorityFile, SSL_CERT_DIR: folder, DISABLE_EMBED_CA: '1' },
    folder,
  });
}

/** https://wiki.metacubex.one/en/config/ */
function mihomoConfig(links: readonly AppLink[]) {
  return {
    'log-level': 'debug',
    mode: 'rule',
    ipv6: false,
    'geo-auto-update': false,
    profile: { 'store-selected': false, 'store-fake-ip': false },
    'proxy-providers': Object.fromEntries(
      links.map(({ tag }) => [
        `list-${tag}`,
        { type: 'file', path: `./${tag}.txt`, 'health-check': { enable: false } },
      ]),
    ),
    'proxy-groups': links.map(({ tag }) => ({
      name: `group-${tag}`,
      type: 'select',
      use: [`list-${tag}`],
    })),
    listeners: links.map(({ tag, socksPort }) => ({
      name: `socks-${tag}`,
      type: 'socks',
      listen: '127.0.0.1',
      port: socksPort,
      udp: true,
      proxy: `group-${tag}`,
    })),
    rules: ['MATCH,REJECT'],
  };
}
