import type { Connection } from '../client-apps/connection.ts';
import { connectionName } from '../client-apps/connection-name.ts';
import type { LeftOut } from '../client-apps/profile.ts';
import { toCoreError } from '../errors.ts';
import type { Link } from '../subscriptions/links.ts';
import { connectionsOfLink } from '../subscriptions/show-link.ts';

/** How client apps connect by these links, and which links lead nowhere yet. */
export function connectionsOfLinks(links: readonly Link[]): {
  connections: Connection[];
  leftOut: LeftOut[];
} {
  const found = { connections: [] as Connection[], leftOut: [] as LeftOut[] };
  for (const link of links) {
    const name = connectionName(link);
    try {
      const connections = connectionsOfLink(link);
      found.connections.push(...connections);
      if (connections.length === 0) {
        found.leftOut.push({ name, why: 'its node has no address yet' });
      }
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
