import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { stringify } from 'yaml';
import { until } from '../../support/api.ts';
import { freePorts } from '../../support/free-port.ts';
import { connectThrough } from '../../support/socks-traffic.ts';
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
  const [directPort = 0] = await freePorts(1);
  writeFileSync(configFile, stringify(mihomoConfig(links, directPort)));
  const child = await startChild({
    file,
    args: ['-d', folder, '-f', configFile],
    ready:
      /Start initial compatible provider|SOCKS\[.*\] proxy listening|Initial configuration complete/,
    logFile: path.join(folder, 'mihomo-client.log'),
    environment: { SSL_CERT_FILE: authorityFile, SSL_CERT_DIR: folder, DISABLE_EMBED_CA: '1' },
    folder,
  });
  try {
    await untilItConnects(directPort);
    return child;
  } catch (thrown) {
    await child.stop();
    throw new Error(`mihomo connects nowhere: ${child.log()}`, { cause: thrown });
  }
}

/**
 * Waits until a connection comes through the listener that needs no proxy. mihomo closes what comes before all of
 * its lists are loaded, and prints nothing when they are.
 */
async function untilItConnects(directPort: number): Promise<void> {
  let hasCome = false;
  const site = net.createServer((socket) => {
    hasCome = true;
    socket.destroy();
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  const { port } = site.address() as net.AddressInfo;
  const ask = async (): Promise<boolean> => {
    // It fails while the listener is not there, and ends at once while mihomo closes what comes.
    await connectThrough(directPort, port).then(
      async (socket) => {
        socket.resume();
        if (!socket.closed) await once(socket, 'close');
      },
      () => undefined,
    );
    return hasCome;
  };
  try {
    await until(ask, (answer) => answer);
  } finally {
    site.close();
  }
}

/** https://wiki.metacubex.one/en/config/ */
function mihomoConfig(links: readonly AppLink[], directPort: number) {
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
    listeners: [
      ...links.map(({ tag, socksPort }) => ({
        name: `socks-${tag}`,
        type: 'socks',
        listen: '127.0.0.1',
        port: socksPort,
        udp: true,
        proxy: `group-${tag}`,
      })),
      { name: 'direct', type: 'socks', listen: '127.0.0.1', port: directPort, proxy: 'DIRECT' },
    ],
    rules: ['MATCH,REJECT'],
  };
}
