import { InvalidArgumentError } from 'commander';
import { accessOf } from '../../panels/account.ts';
import { readInstant } from '../../panels/instant.ts';
import { credentialFault } from '../../protocols/credential.ts';
import type { GivenLink } from '../../subscriptions/import-links.ts';
import type { ImportedSubscription, ImportNote } from '../../subscriptions/imported.ts';
import { bytes, duration, groupNames, id, name, resetPeriod } from '../arguments.ts';

/** Columns of a CSV file, and fields of an NDJSON line. */
export const importColumns = [
  'user',
  'user_id',
  'limit',
  'used',
  'expires',
  'duration',
  'reset',
  'anchor',
  'status',
  'groups',
  'credential',
  'external_id',
] as const;
/** Holds the credential of the link to the protocol with this id. */
type LinkColumn = `link_${number}`;
export type ImportColumn = (typeof importColumns)[number] | LinkColumn;

const linkColumn = /^link_([1-9]\d{0,14})$/;

/** A line's values as text. Empty and missing mean the same. */
type ImportValues = Partial<Record<ImportColumn, string>>;

export function isImportColumn(given: string): given is ImportColumn {
  return importColumns.some((column) => column === given) || linkColumn.test(given);
}

/**
 * Makes a subscription of a line's values.
 * @param zone of times that name none; undefined: such a time is a fault.
 * @throws InvalidArgumentError that names the column at fault.
 */
export function toSubscription(
  values: ImportValues,
  zone: string | undefined,
): { subscription: ImportedSubscription; notes: ImportNote[] } {
  const userName = read(values, 'user', name);
  const userId = read(values, 'user_id', id);
  if ((userName === undefined) === (userId === undefined)) {
    throw new InvalidArgumentError('user, user_id: one of the two is needed');
  }
  const notes: ImportNote[] = [];
  const limit = read(values, 'limit', bytesFrom0);
  if (limit === 0) notes.push({ note: 'has the limit 0: taken as no limit, as panels mean it' });
  const access = readAccess(values, limit || null, zone);
  if (/^\s*\d{4}-\d\d-\d\d\s*$/.test(values.expires ?? '')) {
    const detail = access.expiresAt?.toISOString();
    notes.push({ note: 'expires on a date without a time: at its first moment', detail });
  }
  const subscription = {
    user: userId === undefined ? { name: userName ?? '' } : { id: userId },
    trafficLimitBytes: limit || null,
    ...access,
    resetPeriod: read(values, 'reset', resetPeriod),
    anchorAt: read(values, 'anchor', instantIn(zone)) ?? undefined,
    groups: read(values, 'groups', groupNames),
    credential: readCredential(values, 'credential') ?? null,
    links: readLinks(values),
    externalId: read(values, 'external_id', name),
  };
  return { subscription, notes };
}

/** `limited` and `expired` follow from other columns, so the line must have those, too. */
function readAccess(
  values: ImportValues,
  limitBytes: number | null,
  zone: string | undefined,
): Pick<ImportedSubscription, 'usedBytes' | 'expiresAt' | 'durationSeconds' | 'disabled'> {
  const usedBytes = read(values, 'used', bytesFrom0) ?? 0;
  const expiresAt = read(values, 'expires', instantIn(zone)) ?? null;
  const durationSeconds = read(values, 'duration', duration);
  if (durationSeconds !== undefined && expiresAt !== null) {
    const message = 'duration: it has expires, too: the first traffic would set another expiry';
    throw new InvalidArgumentError(message);
  }
  const status = read(values, 'status', statusOf) ?? 'active';
  if (status === 'on_hold') {
    if (durationSeconds !== undefined) return { usedBytes, expiresAt, durationSeconds };
    const message = 'status: on_hold needs duration, like 30d: the time from its first traffic';
    throw new InvalidArgumentError(message);
  }
  const access = accessOf({ status, limitBytes, usedBytes, expiresAt }, Date.now());
  const disabled = status === 'disabled';
  if (disabled === access.disabled) return { usedBytes, expiresAt, durationSeconds, disabled };
  const why =
    status === 'limited'
      ? 'limited, and used is under limit: give both columns, or write disabled'
      : 'expired, and expires is not in the past: give it, or write disabled';
  throw new InvalidArgumentError(`status: ${why}`);
}

/** Bytes as for an option, and 0. */
function bytesFrom0(given: string): number {
  return /^0+(\.0+)?\s*[a-z]*$/i.test(given) ? 0 : bytes(given);
}

function instantIn(zone: string | undefined): (given: string) => Date | null {
  return (given) => {
    const found = readInstant(given, zone);
    if ('at' in found) return found.at;
    throw new InvalidArgumentError(found.fault);
  };
}

function readLinks(values: ImportValues): GivenLink[] {
  const links: GivenLink[] = [];
  for (const column of Object.keys(values) as ImportColumn[]) {
    const protocolId = linkColumn.exec(column)?.[1];
    const given = protocolId === undefined ? undefined : readCredential(values, column);
    if (given === undefined) continue;
    links.push({ nodeProtocolId: Number(protocolId), credential: given });
  }
  return links;
}

/** Any text as it is, since spaces may be part of a password. Around a UUID they are not. */
function readCredential(values: ImportValues, column: ImportColumn): string | undefined {
  const text = values[column] ?? '';
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const fault = credentialFault(text);
  if (fault !== undefined) throw new InvalidArgumentError(`${column}: ${fault}`);
  return /^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$/i.test(trimmed) ? trimmed : text;
}

const statuses = ['active', 'disabled', 'limited', 'expired', 'on_hold'] as const;

function statusOf(given: string): (typeof statuses)[number] {
  const found = statuses.find((status) => status === given.toLowerCase());
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`It must be one of ${statuses.join(', ')}.`);
}

function read<T>(
  values: ImportValues,
  column: ImportColumn,
  parse: (text: string) => T,
): T | undefined {
  const text = values[column]?.trim() ?? '';
  if (text === '') return undefined;
  // Postgres cannot store U+0000 in text.
  if (text.includes('\u0000')) throw new InvalidArgumentError(`${column}: it must not hold U+0000`);
  try {
    return parse(text);
  } catch (thrown) {
    if (!(thrown instanceof InvalidArgumentError)) throw thrown;
    throw new InvalidArgumentError(`${column}: ${thrown.message}`);
  }
}
