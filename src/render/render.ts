import type { NodeConfig } from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import { clientMapJson, type Json, joined, writeJson } from './clients-json.ts';
import { linksOfProtocols } from './link-records.ts';
import { renderMtProto } from './mtproto.ts';
import type { NodeRows } from './node-rows.ts';
import { renderXray } from './xray.ts';
import { protocolsThatStart } from './xray-versions.ts';

/**
 * The JSON of a NodeConfig in UTF-8 without its revision: `"clientMap":…,"services":…}`. In front of it
 * is room for the revision, so that `withRevision` need not copy the content.
 */
export interface ContentJson {
  bytes: Buffer;
  /** Where the content begins. The bytes before it are not initialised. */
  start: number;
}

/** Room for the largest revision, which is an integer of Postgres. */
const revisionBytesMax = revisionText(2_147_483_647).length;

/** A node's configuration as an object, parsed from what `renderNodeConfigJson` writes. */
export function renderNodeConfig(rows: NodeRows): NodeConfig {
  return JSON.parse(renderNodeConfigJson(rows).toString()) as NodeConfig;
}

/** The JSON of a NodeConfig in UTF-8, at the revision of the rows. */
export function renderNodeConfigJson(rows: NodeRows): Buffer {
  return withRevision(rows.node.revision, renderContentJson(rows));
}

/**
 * Writes a revision in front of a content. The answer shares the content's bytes, so a content can have
 * one revision at a time.
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
 * Renders a node's rows to its configuration. Pure, and the same rows in any order give the same bytes.
 * @throws CoreError INTERNAL if stored settings cannot be rendered. The node then keeps what it runs,
 * which is better than to lose an inbound that people use.
 */
export function renderContentJson(rows: NodeRows): ContentJson {
  const protocols = [...rows.protocols].sort((left, right) => left.id - right.id);
  try {
    const links = linksOfProtocols(
      rows,
      protocols.map((row) => row.id),
    );
    const services: Json[] = [];
    const startable = protocolsThatStart(rows.node.xrayVersion, protocols);
    const xray = renderXray({ ...rows, protocols: startable }, links.of);
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
    return { bytes: writeJson(json, revisionBytesMax), start: revisionBytesMax };
  } catch (cause) {
    const message = `The configuration of node ${rows.node.id} cannot be rendered`;
    throw new CoreError('INTERNAL', message, { cause });
  }
}
