import assert from 'node:assert/strict';
import {
  credentialTextAt,
  credentialUuidOffset,
  type ProtocolLinks,
  type SortedLinks,
  subscriptionIdAt,
  userIdAt,
} from './link-records.ts';

// A configuration has a few parts for every user. This file describes them as elements, and writes them
// as bytes into the configuration's one buffer. JSON.stringify writes the rest. The bench `config`
// measures this.

/** A piece of JSON: texts and elements in their order. `writeJson` joins them. */
export type Json = (string | Elements)[];

/** A part of an element. */
export type ElementPart =
  /** Text in ASCII that is the same in every element. */
  | string
  /** The UUID of the link. */
  | typeof linkUuid
  /** The credential of the link as a UUID. */
  | typeof credentialUuid
  /** An id from the link's record. */
  | { id: (links: SortedLinks, offset: number) => number }
  /** Text that needs no escaping, `bytesMax` long in UTF-8 at most. */
  | { text: (links: SortedLinks, offset: number) => string; bytesMax: number };

export const linkUuid = Symbol('UUID of the link');
export const credentialUuid = Symbol('credential of the link as a UUID');

/** The credential of each link in a JSON string. Only a link with a text of its own needs more than its record. */
export function credentialPart(links: ProtocolLinks): ElementPart {
  if (links.texts.size === 0) return credentialUuid;
  const escaped = (text: string): string => JSON.stringify(text).slice(1, -1);
  let bytesMax = uuidLength;
  for (const text of links.texts.values()) {
    bytesMax = Math.max(bytesMax, Buffer.byteLength(escaped(text)));
  }
  return { text: (_, offset) => escaped(credentialTextAt(links, offset)), bytesMax };
}

/** The elements of an array or the members of an object, one for each link, without the brackets. */
interface Elements {
  links: SortedLinks;
  parts: readonly ElementPart[];
}

const uuidLength = 36;
/** Digits of a number below 2^53. */
const idLengthMax = 16;

export function elementsJson(links: SortedLinks, parts: readonly ElementPart[]): Json {
  return [{ links, parts }];
}

/** The members of `clientMap`, in the order of the links. */
export function clientMapJson(links: SortedLinks): Json {
  return elementsJson(links, [
    '"',
    linkUuid,
    '":{"userId":',
    { id: userIdAt },
    ',"subscriptionId":',
    { id: subscriptionIdAt },
    '}',
  ]);
}

/**
 * The JSON of an object with these elements in its array `key`, which must be empty. JSON escapes a
 * quote within a string, so nobody's text can contain the mark that this searches.
 */
export function withElements(object: object, key: string, elements: Json): Json {
  const json = JSON.stringify(object);
  const mark = `"${key}":[`;
  const at = json.indexOf(`${mark}]`);
  assert.notEqual(at, -1, `${key} is an empty array`);
  const start = at + mark.length;
  return [json.slice(0, start), ...elements, json.slice(start)];
}

/** Joins the parts by commas. */
export function joined(parts: readonly Json[]): Json {
  return parts.flatMap((part, index) => (index === 0 ? part : [',', ...part]));
}

/** Writes JSON in UTF-8, behind `roomBytes` bytes that the caller writes itself. */
export function writeJson(json: Json, roomBytes: number): Buffer {
  let bytesMax = roomBytes;
  for (const piece of json) {
    bytesMax += typeof piece === 'string' ? Buffer.byteLength(piece) : elementsBytesMax(piece);
  }
  const bytes = Buffer.allocUnsafe(bytesMax);
  let end = roomBytes;
  for (const piece of json) {
    if (typeof piece === 'string') end += bytes.write(piece, end);
    else end = writeElements(bytes, end, piece);
  }
  return bytes.subarray(0, end);
}

function elementsBytesMax({ links, parts }: Elements): number {
  const lengths = parts.map((part) => {
    if (typeof part === 'string') return part.length;
    if (part === linkUuid || part === credentialUuid) return uuidLength;
    return 'id' in part ? idLengthMax : part.bytesMax;
  });
  const commaLength = 1;
  return lengths.reduce((sum, length) => sum + length, commaLength) * links.offsets.length;
}

/** Writes byte by byte: for pieces this short, Buffer's own methods take several times as long. */
function writeElements(bytes: Buffer, start: number, { links, parts }: Elements): number {
  const { records, offsets } = links;
  const written = parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part));
  let end = start;
  for (const offset of offsets) {
    if (end > start) {
      bytes[end] = comma;
      end += 1;
    }
    for (const part of written) {
      if (part === linkUuid) end = writeUuid(bytes, end, records, offset);
      else if (part === credentialUuid) {
        end = writeUuid(bytes, end, records, offset + credentialUuidOffset);
      } else if (part instanceof Uint8Array) end = writeConstant(bytes, end, part);
      else if ('id' in part) end = writeId(bytes, end, part.id(links, offset));
      else end = writeText(bytes, end, part.text(links, offset), part.bytesMax);
    }
  }
  return end;
}

const comma = 0x2c;
const dash = 0x2d;
const hexDigits = Buffer.from('0123456789abcdef');
/** The two hexadecimal digits of each byte, the first one in the lower half. */
const hexPairs = Uint16Array.from({ length: 256 }, (_, byte) => {
  return (hexDigits[byte >> 4] as number) | ((hexDigits[byte & 15] as number) << 8);
});

function writeUuid(bytes: Buffer, start: number, records: Buffer, offset: number): number {
  let end = start;
  for (let index = 0; index < 16; index += 1) {
    if (index === 4 || index === 6 || index === 8 || index === 10) {
      bytes[end] = dash;
      end += 1;
    }
    const pair = hexPairs[records[offset + index] as number] as number;
    bytes[end] = pair & 0xff;
    bytes[end + 1] = pair >> 8;
    end += 2;
  }
  return end;
}

function writeConstant(bytes: Buffer, start: number, constant: Uint8Array): number {
  for (let index = 0; index < constant.length; index += 1) {
    bytes[start + index] = constant[index] as number;
  }
  return start + constant.length;
}

/** The buffer has room for `bytesMax` only, so a longer text would take the room of the next ones. */
function writeText(bytes: Buffer, start: number, text: string, bytesMax: number): number {
  const written = bytes.write(text, start);
  assert(written <= bytesMax, 'a text of an element is within its bytesMax');
  return start + written;
}

function writeId(bytes: Buffer, start: number, id: number): number {
  // The loops below use `| 0`, which is exact only below 2^31. Hardly any id is larger.
  if (id >= 1_000_000_000) return start + bytes.write(String(id), start, 'latin1');
  let length = 1;
  for (let rest = id; rest >= 10; rest = (rest / 10) | 0) length += 1;
  let rest = id;
  for (let at = start + length - 1; at >= start; at -= 1) {
    const quotient = (rest / 10) | 0;
    bytes[at] = 0x30 + rest - quotient * 10;
    rest = quotient;
  }
  return start + length;
}
