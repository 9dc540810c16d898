import type { NodeConfig } from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import { clientMapJson, type Json, joined, jsonBytes } from './clients-json.ts';
import { linksOfProtocols } from './link-records.ts';
import { renderMtProto } from './mtproto.ts';
import type { NodeRows } from './node-rows.ts';
import { renderXray } from './xray.ts';

/**
 * The JSON of a NodeConfig in UTF-8, all but its revision: `"clientMap":…,"services":…}` behind room
 * for it. So the number can be written in later without copying what is behind.
 */
export interface ContentJson {
  bytes: Buffer;
  /** Where the content begins. What is before it is not yet anything. */
  start: number;
}

/** Of the longest beginning, since a revision is an integer of Postgres. */
const revisionBytesMax = revisionText(2_147_483_647).length;

/** A node's configuration as an object: what `renderNodeConfigJson` says, read back. */
export function renderNodeConfig(rows: NodeRows): NodeConfig {
  return JSON.parse(renderNodeConfigJson(rows).toString()) as NodeConfig;
}

/** The JSON of a NodeConfig, in UTF-8, at the revision that the rows say. */
export function renderNodeConfigJson(rows: NodeRows): Buffer {
  return withRevision(rows.node.revision, renderContentJson(rows));
}

/**
 * Writes the number of a revision before what `renderContentJson` gave. The answer shares its bytes:
 * the same content can have one revision at a time.
 */
export function withRevision(revision: number, { bytes, start }: ContentJson): Buffer {
  const text = revisionText(revision);
  bytes.write(text, start - text.length, 'latin1');
  return bytes.subarray(start - text.length);
}

function revisionText(revision: number): string {
  return `{"revision":${revision},`;
}

/**
 * A node's configuration from its rows. Pure, and stable to the byte: the same rows in any order
 * (links have theirs) give the same JSON.
 * @throws CoreError INTERNAL where stored settings cannot be rendered. The node keeps what it runs,
 * which is better than losing an inbound that its users are on.
 */
export function renderContentJson(rows: NodeRows): ContentJson {
  const protocols = [...rows.protocols].sort((left, right) => left.id - right.id);
  try {
    const links = linksOfProtocols(
      rows.links,
      protocols.map((row) => row.id),
    );
    const services: Json[] = [];
    const xray = renderXray({ ...rows, protocols }, links.of);
    if (xray !== undefined) services.push(['"xray":', ...xray]);
    const mtproto = renderMtProto({ node: rows.node, protocols }, links.of);
    if (mtproto !== undefined) services.push(['"mtproto":', ...mtproto]);
    const json = [
      '"clientMap":{',
      ...clientMapJson(links.all),
      '},"services":{',
      ...joined(services),
      '}}',
    ];
    return { bytes: jsonBytes(json, revisionBytesMax), start: revisionBytesMax };
  } catch (cause) {
    const message = `The configuration of node ${rows.node.id} cannot be rendered`;
    throw new CoreError('INTERNAL', message, { cause });
  }
}
