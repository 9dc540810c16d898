import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import type { NodeRows, NodeSettings } from '../render/node-rows.ts';
import { withSortedKeys } from '../render/order.ts';
import { type ContentJson, renderContentJson, withRevision } from '../render/render.ts';

/** What a node should run, without its revision. */
export interface RenderedContent {
  /** JSON of the configuration without its revision. */
  json: ContentJson;
  /** SHA-256 of the JSON in hex. Two renderings with the same hash are the same revision. */
  hash: string;
  /** The size of the configuration, exact enough to limit a batch. */
  bytes: number;
}

// Both work in zlib's own threads.
const compress = promisify(gzip);
const decompress = promisify(gunzip);
/** A configuration is mostly random UUIDs: the default level saves little and takes three times as long. */
const gzipLevel = 1;

/**
 * Renders rows, without the revision that they are going to have.
 * @throws CoreError INTERNAL if stored settings cannot be rendered.
 */
export function renderContent(rows: NodeRows): RenderedContent {
  const json = renderContentJson(rows);
  const content = json.bytes.subarray(json.start);
  const hash = createHash('sha256').update(content).digest('hex');
  return { json, hash, bytes: content.length };
}

/**
 * The bytes that Core sends for a revision: gzip of `{"revision":…,"clientMap":…,"services":…}`. A
 * content holds one revision at a time, so wait for the answer before you compress it for another one.
 */
export function compressContent(content: RenderedContent, revision: number): Promise<Buffer> {
  return compress(withRevision(revision, content.json), { level: gzipLevel });
}

/** The JSON that `compressContent` compressed. */
export function decompressContent(compressed: Buffer): Promise<Buffer> {
  return decompress(compressed);
}

/**
 * The settings of a node as JSON, to be kept for a rollback, and their SHA-256 in hex. What a node does not have
 * is absent, so settings from before Core had it keep their hash.
 */
export function encodeSettings(rows: NodeSettings): { json: string; hash: string } {
  const { protocols, outbounds, rules, xray } = rows;
  const settings = { protocols, outbounds, rules, ...(xray === undefined ? {} : { xray }) };
  const json = JSON.stringify(withSortedKeys(settings));
  return { json, hash: createHash('sha256').update(json).digest('hex') };
}
