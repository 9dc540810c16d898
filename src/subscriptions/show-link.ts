import { connectionOf } from '../client-apps/connection.ts';
import { shareLink } from '../client-apps/share-link.ts';
import { CoreError } from '../errors.ts';
import { publicAddress } from '../render/public-address.ts';
import type { Queryable } from '../stores/postgres.ts';
import { type Link, type LinkReference, readLink } from './links.ts';

/**
 * The share links of a link: the URIs for a client app, one for each place where the protocol can be reached.
 * They exist even while the subscription has no access.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if neither the node nor the protocol has an address.
 */
export async function showShareLinks(db: Queryable, reference: LinkReference): Promise<string[]> {
  const link = await readLink(db, reference);
  const uris = shareLinksOf(link);
  if (uris.length > 0) return uris;
  throw new CoreError(
    'INVALID_ARGUMENT',
    `Node ${link.nodeId} has no host or address yet, and its protocol no publicHost. Register the node, or give it a host: core node set ${link.nodeId} --host NAME`,
  );
}

/** The share links of a link. None if nobody knows yet where its node is. */
export function shareLinksOf(link: Link): string[] {
  const settings = link.settings as { publicHost?: string; publicPort?: number };
  const { host, port } = publicAddress(link, link.port, settings);
  if (host === '') return [];
  const name = `${link.nodeName} ${link.protocol}`;
  const { credential } = link;
  return [shareLink(connectionOf(link.protocol, settings, { credential, host, port, name }))];
}
