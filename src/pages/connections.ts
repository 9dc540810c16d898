import { type Connection, connectionOf } from '../client-apps/connection.ts';
import type { LeftOut } from '../client-apps/profile.ts';
import { toCoreError } from '../errors.ts';
import { publicAddress } from '../render/public-address.ts';
import type { Link } from '../subscriptions/links.ts';

/** How client apps connect by these links, and which links lead nowhere yet. */
export function connectionsOfLinks(links: readonly Link[]): {
  connections: Connection[];
  leftOut: LeftOut[];
} {
  const found = { connections: [] as Connection[], leftOut: [] as LeftOut[] };
  for (const link of links) {
    const name = `${link.nodeName} ${link.protocol}`;
    const settings = link.settings as { publicHost?: string; publicPort?: number };
    const { host, port } = publicAddress(link, link.port, settings);
    if (host === '') {
      found.leftOut.push({ name, why: 'its node has no address yet' });
      continue;
    }
    const place = { credential: link.credential, host, port, name };
    try {
      found.connections.push(connectionOf(link.protocol, link.settings, place));
    } catch (thrown) {
      // One protocol that cannot be said must not take the others from the user.
      if (toCoreError(thrown).code !== 'INVALID_ARGUMENT') throw thrown;
      found.leftOut.push({ name, why: 'its settings are not complete' });
    }
  }
  return found;
}

/**
 * What an app shows in place of links. Many apps keep their old links if a list is empty, so there is one
 * that leads nowhere, and its name says why.
 */
export function noticeOf(name: string): Connection {
  return {
    name,
    host: '127.0.0.1',
    port: 1,
    protocol: 'VLESS',
    uuid: '00000000-0000-4000-8000-000000000000',
    transport: { network: 'raw' },
    security: { kind: 'none' },
  };
}
