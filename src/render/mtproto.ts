import type { MtProtoInbound } from '../contract/node-config.ts';
import { type ProtocolSettings, parseProtocolSettings } from '../protocols/settings.ts';
import {
  type ElementPart,
  elementsJson,
  type Json,
  joined,
  linkUuid,
  withElements,
} from './clients-json.ts';
import { credentialUuidAt, expiryAt, type SortedLinks } from './link-records.ts';
import type { NodeRows, ProtocolRow } from './node-rows.ts';
import { publicAddress } from './public-address.ts';

/**
 * The MTProto service of a node as JSON; undefined if it has no inbound. telemt does not start without
 * a user, so an inbound without one is left out.
 * @param linksOf Gives the sorted links of a protocol.
 */
export function renderMtProto(
  rows: { node: NodeRows['node']; protocols: readonly ProtocolRow[] },
  linksOf: (nodeProtocolId: number) => SortedLinks,
): Json | undefined {
  const inbounds: Json[] = [];
  for (const row of rows.protocols) {
    if (row.protocol !== 'MTPROTO') continue;
    const settings = parseProtocolSettings('MTPROTO', row.settings);
    const links = linksOf(row.id);
    if (links.offsets.length === 0) continue;
    const inbound = mtProtoInbound(rows.node, row, settings);
    inbounds.push(withElements(inbound, 'users', elementsJson(links, userParts(settings))));
  }
  if (inbounds.length === 0) return undefined;
  return ['{"inbounds":[', ...joined(inbounds), ']}'];
}

function mtProtoInbound(
  node: NodeRows['node'],
  row: ProtocolRow,
  settings: ProtocolSettings['MTPROTO'],
): MtProtoInbound {
  const { host, port } = publicAddress(node, row.port, settings);
  return {
    tag: `in-${row.id}`,
    listen: settings.listen ?? '0.0.0.0',
    port: row.port,
    publicHost: host,
    publicPort: port,
    tlsDomain: settings.tlsDomain,
    modes: settings.modes,
    ...(settings.adTag === undefined ? {} : { adTag: settings.adTag }),
    users: [],
  };
}

/** The parts of an MtProtoUser. */
function userParts(settings: ProtocolSettings['MTPROTO']): ElementPart[] {
  let limits = '';
  if (settings.maxTcpConns !== undefined) limits += `,"maxTcpConns":${settings.maxTcpConns}`;
  if (settings.maxUniqueIps !== undefined) limits += `,"maxUniqueIps":${settings.maxUniqueIps}`;
  return [
    '{"name":"',
    linkUuid,
    '","secret":"',
    { text: (links, offset) => mtProtoSecret(credentialUuidAt(links, offset)), bytesMax: 32 },
    `"${limits}`,
    { text: expiryMember, bytesMax: expiryMemberBytesMax },
    '}',
  ];
}

function expiryMember(links: SortedLinks, offset: number): string {
  const expiresAt = expiryAt(links, offset);
  return expiresAt === null ? '' : `,"expiresAt":"${expiresAt}"`;
}

/** The latest Date has a year of six digits and a sign. */
const expiryMemberBytesMax = ',"expiresAt":"+275760-09-13T00:00:00.000Z"'.length;

/**
 * A user's MTProto secret: the 32 hexadecimal digits of the link's credential, read as a UUID.
 * @param uuid with dashes.
 */
export function mtProtoSecret(uuid: string): string {
  return uuid.replaceAll('-', '');
}
