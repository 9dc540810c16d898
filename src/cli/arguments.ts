import { readFileSync } from 'node:fs';
import { InvalidArgumentError } from 'commander';
import { z } from 'zod';
import { type VpnProtocol, vpnProtocols } from '../contract/enums.ts';
import { hostFault, ipFault, isAddress, isHost } from '../contract/fields.ts';
import { limits } from '../contract/limits.ts';
import { holdsPlaceholder, keptMarker, maskText } from '../fleet/secrets.ts';
import type { IdRange } from '../groups/members.ts';
import { integer } from '../integer.ts';
import { credentialFault } from '../protocols/credential.ts';
import { type OutboundProtocol, outboundProtocols } from '../protocols/outbound/outbound.ts';
import { isDeeperThan } from '../protocols/raw.ts';
import { protocolName as protocolNameSchema } from '../settings/protocol-names.ts';
import { type ResetPeriod, resetPeriods } from '../subscriptions/period.ts';
import { hiddenFault, isStorable } from '../text.ts';

// Parsers of single arguments, for commander. What they throw becomes one line that names the option. The
// modules that the commands call may rely on the checks made here.

const int4Max = 2_147_483_647;
const settingsCharsMax = 1_048_576;
const settingsDepthMax = 64;

/** The id of a node. */
export const nodeId = integer(1, int4Max);
/** The id of anything else. */
export const id = integer(1, Number.MAX_SAFE_INTEGER);
/** An id to list after. */
export const afterId = integer(0, Number.MAX_SAFE_INTEGER);
export const port = integer(1, 65_535);
/** A place in an order, from 1. */
export const position = integer(1, 100_000);
/** The number of a node's revision. */
export const revision = integer(1, int4Max);
export const rowsMax = integer(1, 100_000);

/** A name, tag or reason: readable text on one line. */
export function name(given: string): string {
  const trimmed = given.trim();
  if (trimmed === '') throw new InvalidArgumentError('It must not be empty.');
  if (trimmed.length > limits.nameCharsMax) {
    throw new InvalidArgumentError(`It must have at most ${limits.nameCharsMax} characters.`);
  }
  const fault = hiddenFault(trimmed);
  if (fault !== undefined) throw new InvalidArgumentError(sentence(fault));
  return trimmed;
}

/** The checks of the wire say `Must be …`; the command line says `It must be ….`. */
function sentence(fault: string): string {
  return `It ${fault.charAt(0).toLowerCase()}${fault.slice(1)}.`;
}

/** The name of a group. Lists of groups are separated by commas or semicolons, so a name holds none. */
export function groupName(given: string): string {
  const parsed = name(given);
  if (!/[,;@]/.test(parsed)) return parsed;
  throw new InvalidArgumentError('It must not hold a comma, a semicolon or @.');
}

/** Names of groups, like `default,premium`; at least one. */
export function groupNames(given: string): string[] {
  return [...new Set(given.split(/[,;]/).map(groupName))];
}

const rangesMax = 1_000_000;
const rangeFileCharsMax = 16_777_216;

/** Ids like `1,2,5-900`, or @file with ids in lines. */
export function idRanges(given: string): IdRange[] {
  const text = given.startsWith('@') ? readText(given.slice(1), rangeFileCharsMax) : given;
  const parts = text.split(/[\s,]+/).filter((part) => part !== '');
  if (parts.length === 0) throw new InvalidArgumentError('It names no ids.');
  if (parts.length > rangesMax) {
    throw new InvalidArgumentError(`It must have at most ${rangesMax} ids and ranges.`);
  }
  return parts.map((part) => {
    const [from = '', to = from, rest] = part.split('-');
    const range = { from: id(from), to: id(to) };
    if (rest === undefined && range.from <= range.to) return range;
    throw new InvalidArgumentError(`${part} is no range like 5-900.`);
  });
}

/** What a client app holds: any text. */
export function credential(given: string): string {
  const fault = credentialFault(given);
  if (fault === undefined) return given;
  throw new InvalidArgumentError(sentence(fault));
}

/** The name of a protocol on its node. */
export function protocolName(given: string): string {
  const parsed = protocolNameSchema.safeParse(given.trim());
  if (parsed.success) return parsed.data;
  throw new InvalidArgumentError(sentence(parsed.error.issues[0]?.message ?? ''));
}

/** Where clients reach a node. */
export function host(given: string): string {
  if (isHost(given.trim())) return given.trim();
  throw new InvalidArgumentError(sentence(hostFault));
}

/** A name or a host as above, or an empty string. */
export const nameOrNone = (given: string): string => (given.trim() === '' ? '' : name(given));
export const hostOrNone = (given: string): string => (given.trim() === '' ? '' : host(given));

export function ip(given: string): string {
  if (isAddress(given.trim())) return given.trim();
  throw new InvalidArgumentError(sentence(ipFault));
}

/** A UUID. Returns it in lower case, as Postgres writes it. */
export function uuid(given: string): string {
  const lower = given.toLowerCase();
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(lower)) return lower;
  throw new InvalidArgumentError('It must be a UUID, 36 characters with dashes.');
}

/** `on` or `off`, as true or false. */
export function onOrOff(given: string): boolean {
  if (given === 'on') return true;
  if (given === 'off') return false;
  throw new InvalidArgumentError('It must be on or off.');
}

/** A VPN protocol, in upper or lower case. */
export function vpnProtocol(given: string): VpnProtocol {
  const found = vpnProtocols.find((protocol) => protocol === given.toUpperCase());
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`It must be one of ${vpnProtocols.join(', ')}.`);
}

/** An Xray outbound protocol, in upper or lower case. */
export function outboundProtocol(given: string): OutboundProtocol {
  const found = outboundProtocols.find((protocol) => protocol === given.toLowerCase());
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`It must be one of ${outboundProtocols.join(', ')}.`);
}

/** A JSON object, inline or as @file. */
export function settings(given: string): Record<string, unknown> {
  const text = given.startsWith('@') ? readText(given.slice(1), settingsCharsMax) : given;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidArgumentError(`It is not valid JSON: ${(cause as Error).message}.`);
  }
  if (isDeeperThan(value, settingsDepthMax)) {
    throw new InvalidArgumentError(`It must have at most ${settingsDepthMax} levels.`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    if (holdsPlaceholder(value, [keptMarker, maskText])) {
      throw new InvalidArgumentError(
        `It must not hold ${keptMarker} or ${maskText}, which stand for a secret: write the secret itself.`,
      );
    }
    if (isStorable(value)) return value as Record<string, unknown>;
    throw new InvalidArgumentError('It must hold neither U+0000 nor half a surrogate pair.');
  }
  throw new InvalidArgumentError('It must be a JSON object.');
}

/** The text of a file that an argument names. */
export function readText(file: string, charsMax: number): string {
  try {
    const text = readFileSync(file, 'utf8');
    if (text.length <= charsMax) return text;
  } catch (cause) {
    throw new InvalidArgumentError(`The file cannot be read: ${(cause as Error).message}.`);
  }
  throw new InvalidArgumentError(`The file has over ${charsMax} characters.`);
}

const byteUnits: Record<string, bigint> = {
  '': 1n,
  B: 1n,
  KB: 1_000n,
  MB: 1_000_000n,
  GB: 1_000_000_000n,
  TB: 1_000_000_000_000n,
  KIB: 1_024n,
  MIB: 1_048_576n,
  GIB: 1_073_741_824n,
  TIB: 1_099_511_627_776n,
};

/** A number of bytes with an optional unit: KB is 1,000 and KiB is 1,024, in upper or lower case. */
export function bytes(given: string): number {
  const parts = /^(\d{1,16})(?:\.(\d{1,12}))?\s*([a-zA-Z]*)$/.exec(given.trim());
  const unit = byteUnits[(parts?.[3] ?? '').toUpperCase()];
  if (parts === null || unit === undefined) {
    throw new InvalidArgumentError(
      'It must be a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, like 10GB.',
    );
  }
  const fraction = parts[2] ?? '';
  const scale = 10n ** BigInt(fraction.length);
  const scaled = BigInt(`${parts[1]}${fraction}`) * unit;
  if (scaled % scale !== 0n) throw new InvalidArgumentError('It must be whole bytes.');
  const value = scaled / scale;
  if (value < 1n || value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new InvalidArgumentError(`It must be from 1 to ${Number.MAX_SAFE_INTEGER} bytes.`);
  }
  return Number(value);
}

const isoDate = z.iso.datetime({ offset: true });

/** ISO 8601 with a zone. */
export function date(given: string): Date {
  const atMs = isoDate.safeParse(given).success ? Date.parse(given) : Number.NaN;
  if (!Number.isNaN(atMs)) return new Date(atMs);
  throw new InvalidArgumentError(
    'It must be a date and time with zone, like 2030-01-31T00:00:00Z.',
  );
}

const durationUnits: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 };
/** A hundred years, so that every date that follows can be written. */
const durationSecondsMax = 3_155_760_000;

/** A duration like 30d, 12h or 2592000s, in seconds. */
export function duration(given: string): number {
  const parts = /^(\d{1,10})\s*([smhdw])$/i.exec(given.trim());
  const unit = durationUnits[(parts?.[2] ?? '').toLowerCase()];
  if (parts === null || unit === undefined) {
    throw new InvalidArgumentError('It must be a number with s, m, h, d or w, like 30d.');
  }
  const seconds = Number(parts[1]) * unit;
  if (seconds >= 1 && seconds <= durationSecondsMax) return seconds;
  throw new InvalidArgumentError('It must be from 1 second to 100 years.');
}

/** How often traffic is reset, in upper or lower case. */
export function resetPeriod(given: string): ResetPeriod {
  const found = resetPeriods.find((period) => period === given.toLowerCase());
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`It must be one of ${resetPeriods.join(', ')}.`);
}

// Commander turns null into ''; the command converts these words to null instead.

/** Bytes, or `none`. */
export const bytesOrNone = (given: string): number | 'none' =>
  given.toLowerCase() === 'none' ? 'none' : bytes(given);

/** A date, or `never`. */
export const dateOrNever = (given: string): Date | 'never' =>
  given.toLowerCase() === 'never' ? 'never' : date(given);

/** A query that only reads. Refuses INSERT itself, because ClickHouse would let it write to a file. */
export function query(given: string): string {
  const start = given.replace(/^(\s|--[^\n]*(\n|$)|\/\*[\s\S]*?\*\/)+/, '');
  if (start === '') throw new InvalidArgumentError('It is empty.');
  if (/^insert\b/i.test(start)) throw new InvalidArgumentError('It must only read.');
  return given;
}
