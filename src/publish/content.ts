import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import type { NodeRows, NodeSettings } from '../render/node-rows.ts';
import { withSortedKeys } from '../render/order.ts';
import { type ContentJson, renderContentJson, withRevision } from '../render/render.ts';

/** What a node should run, without the number of its revision. */
export interface RenderedContent {
  /** JSON of the configuration, all but its revision. */
  json: ContentJson;
  /** SHA-256 of it in hex: two renders with one hash are one revision. */
  hash: string;
  /** Bytes of the whole configuration, near enough to bound a batch by. */
  bytes: number;
}

const compress = promisify(gzip);
const unpack = promisify(gunzip);
/**
 * In zlib's own threads. A configuration is mostly random UUIDs, which the default level packs little
 * better and takes three times as long for.
 */
const gzipLevel = 1;

/**
 * Renders rows, whatever revision they are going to have.
 * @throws CoreError INTERNAL where stored settings cannot be rendered.
 */
export function renderContent(rows: NodeRows): RenderedContent {
  const json = renderContentJson(rows);
  const content = json.bytes.subarray(json.start);
  const hash = createHash('sha256').update(content).digest('hex');
  return { json, hash, bytes: content.length };
}

/**
 * The bytes that go out for a revision: gzip of `{"revision":…,"clientMap":…,"services":…}`. A
 * content is packed for one revision at a time.
 */
export function packContent(content: RenderedContent, revision: number): Promise<Buffer> {
  return compress(withRevision(revision, content.json), { level: gzipLevel });
}

/** The JSON of what `packContent` made. */
export function unpackContent(packed: Buffer): Promise<Buffer> {
  return unpack(packed);
}

/** What operators set of a node, as it is kept for a rollback, with its SHA-256 in hex. */
export function packSettings(rows: NodeSettings): { json: string; hash: string } {
  const { protocols, outbounds, rules } = rows;
  const json = JSON.stringify(withSortedKeys({ protocols, outbounds, rules }));
  return { json, hash: createHash('sha256').update(json).digest('hex') };
}
