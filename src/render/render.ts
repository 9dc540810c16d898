import type { NodeConfig } from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import { clientMapJson, type Json, joined, requireUuids } from './clients-json.ts';
import type { LinkRow, NodeRows } from './load.ts';
import { renderMtProto } from './mtproto.ts';
import { byText } from './order.ts';
import { renderXray } from './xray.ts';

/** A node's configuration as an object: what `renderNodeConfigJson` says, read back. */
export function renderNodeConfig(rows: NodeRows): NodeConfig {
  return JSON.parse(renderNodeConfigJson(rows).toString()) as NodeConfig;
}

/** The JSON of a NodeConfig, in UTF-8, at the revision that the rows say. */
export function renderNodeConfigJson(rows: NodeRows): Buffer {
  return withRevision(rows.node.revision, renderContentJson(rows));
}

/** Puts the number of a revision before what `renderContentJson` gave. */
export function withRevision(revision: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`{"revision":${revision},`), content]);
}

/**
 * A node's configuration from its rows, as the JSON of a NodeConfig in UTF-8 behind its revision:
 * `"clientMap":…,"services":…}`. Pure, and stable to the byte: the same rows in any order give the
 * same JSON.
 * @throws CoreError INTERNAL where stored settings cannot be rendered. The node keeps what it runs,
 * which is better than losing an inbound that its users are on.
 */
export function renderContentJson(rows: NodeRows): Buffer {
  const protocols = [...rows.protocols].sort((left, right) => left.id - right.id);
  const served = new Set(protocols.map((row) => row.id));
  const links = sortedByUuid(rows.links.filter((link) => served.has(link.nodeProtocolId)));
  const groups = groupByProtocol(links);
  const linksOf = (nodeProtocolId: number): readonly LinkRow[] => groups.get(nodeProtocolId) ?? [];
  try {
    requireUuids(links);
    const services: Json[] = [];
    const xray = renderXray({ ...rows, protocols }, linksOf);
    if (xray !== undefined) services.push([Buffer.from('"xray":'), ...xray]);
    const mtproto = renderMtProto({ node: rows.node, protocols }, linksOf);
    if (mtproto !== undefined) services.push([Buffer.from('"mtproto":'), ...mtproto]);
    return Buffer.concat([
      Buffer.from('"clientMap":{'),
      ...clientMapJson(links),
      Buffer.from('},"services":{'),
      ...joined(services),
      Buffer.from('}}'),
    ]);
  } catch (cause) {
    const message = `The configuration of node ${rows.node.id} cannot be rendered`;
    throw new CoreError('INTERNAL', message, { cause });
  }
}

/** Postgres gives the rows in this order already, and then nothing is left to sort. */
function sortedByUuid(links: LinkRow[]): LinkRow[] {
  const sorted = links.every((link, index) => {
    const before = links[index - 1];
    return before === undefined || before.uuid <= link.uuid;
  });
  return sorted ? links : links.sort((left, right) => byText(left.uuid, right.uuid));
}

/** Links by node protocol, in the order of `links`. */
function groupByProtocol(links: readonly LinkRow[]): Map<number, LinkRow[]> {
  const groups = new Map<number, LinkRow[]>();
  for (const link of links) {
    const group = groups.get(link.nodeProtocolId);
    if (group === undefined) groups.set(link.nodeProtocolId, [link]);
    else group.push(link);
  }
  return groups;
}
