import assert from 'node:assert/strict';
import type { LinkRow } from './load.ts';

// A node may have 100,000 users. Written as text, in batches and into one buffer, they take a good
// half of the processor time of objects and JSON.stringify. So what there is one of for each user is
// written here, as bytes. All else of a configuration is an object. The bench `config` measures it.

/** A piece of JSON: chunks that follow each other. They are put together once, at the end. */
export type Json = Buffer[];

/** Links whose text is put together before it becomes bytes. More makes the strings slow to copy. */
const batchLinks = 64;

/**
 * The elements of a JSON array or the members of an object, one for each link, without the brackets.
 * @param write one of them, in ASCII. UUIDs need no escaping: `requireUuids` has looked at them.
 */
export function elementsJson(
  links: readonly LinkRow[],
  write: (uuid: string, link: LinkRow) => string,
): Json {
  let bytes = Buffer.alloc(0);
  let end = 0;
  for (let start = 0; start < links.length; start += batchLinks) {
    let text = '';
    for (const link of links.slice(start, start + batchLinks)) {
      text += end === 0 && text === '' ? write(link.uuid, link) : `,${write(link.uuid, link)}`;
    }
    if (end + text.length > bytes.length) {
      // Elements are about as long as those before; a tenth on top, and rarely a second time.
      const batchesLeft = Math.ceil((links.length - start) / batchLinks);
      const grown = Buffer.allocUnsafe(Math.ceil(end + text.length * batchesLeft * 1.1));
      bytes.copy(grown, 0, 0, end);
      bytes = grown;
    }
    end += bytes.write(text, end, 'latin1');
  }
  return [bytes.subarray(0, end)];
}

/** The members of `clientMap`, in the order of the links. */
export function clientMapJson(links: readonly LinkRow[]): Json {
  return elementsJson(links, (uuid, { userId, subscriptionId }) => {
    return `"${uuid}":{"userId":${userId},"subscriptionId":${subscriptionId}}`;
  });
}

/**
 * The JSON of an object whose array `key` is empty, with these elements in it. In JSON a quote
 * within a string is escaped, so the mark that is looked for is never part of somebody's text.
 */
export function withElements(object: object, key: string, elements: Json): Json {
  const json = JSON.stringify(object);
  const mark = `"${key}":[`;
  const at = json.indexOf(`${mark}]`);
  assert.notEqual(at, -1, `${key} is an empty array`);
  const start = at + mark.length;
  return [Buffer.from(json.slice(0, start)), ...elements, Buffer.from(json.slice(start))];
}

/** The parts with a comma between each two. */
export function joined(parts: readonly Json[]): Json {
  return parts.flatMap((part, index) => (index === 0 ? part : [Buffer.from(','), ...part]));
}

/** A link that is not written as a UUID could break out of its JSON string. */
export function requireUuids(links: readonly LinkRow[]): void {
  for (const { uuid } of links) assert(uuidPattern.test(uuid), 'a link is a UUID');
}

const uuidPattern = /^[0-9a-f-]{36}$/;
