import type { Connection } from './connection.ts';
import type { Profile } from './profile.ts';
import { shareLink } from './share-link.ts';

/** Share links, a line each: every connection has one. */
export function linkList(connections: readonly Connection[]): Profile {
  return {
    text: connections.map((connection) => `${shareLink(connection)}\n`).join(''),
    leftOut: [],
  };
}

/**
 * The list as nearly all client apps fetch it: Base64 of the share links, a line each. It has no links for
 * Telegram, which fetches no list.
 */
export function base64List(connections: readonly Connection[]): Profile {
  const taken = connections.filter(({ protocol }) => protocol !== 'MTPROTO');
  const leftOut = connections
    .filter(({ protocol }) => protocol === 'MTPROTO')
    .map(({ name }) => ({ name, why: 'only Telegram takes MTProto' }));
  return { text: Buffer.from(linkList(taken).text).toString('base64'), leftOut };
}
