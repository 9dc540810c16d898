import { boundsOf, withFormerNames } from '../protocols/xhttp.ts';

// XHTTP's `extra` in a share link: JSON by Xray's names. Xray reads it whatever the form of a value and the case of
// a name. mihomo reads some fields in one form only, and takes its own default if they have another one.

/** Fields that mihomo reads as numbers only. */
const numbers = ['uplinkChunkSize', 'scMaxEachPostBytes', 'scMinPostsIntervalMs'];

/** The value of `extra` in a share link. */
export function linkExtra(extra: Readonly<Record<string, unknown>>): string {
  const fields = Object.entries(withFormerNames(extra)).map(([name, value]) => [
    name,
    inFormOf(name, value),
  ]);
  const { uplinkHTTPMethod } = extra;
  const forMihomo = uplinkHTTPMethod === undefined ? {} : { uplinkHttpMethod: uplinkHTTPMethod };
  return JSON.stringify({ ...Object.fromEntries(fields), ...forMihomo });
}

function inFormOf(name: string, value: unknown): unknown {
  if (typeof value !== 'number' && typeof value !== 'string') return value;
  if (name === 'xPaddingBytes') return String(value);
  if (!numbers.includes(name)) return value;
  const [from, to] = boundsOf(value);
  return from === to ? from : value;
}
