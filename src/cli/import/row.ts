import { InvalidArgumentError } from 'commander';
import { credentialFault } from '../../protocols/credential.ts';
import type { ImportedSubscription } from '../../subscriptions/import.ts';
import type { GivenLink } from '../../subscriptions/import-links.ts';
import { bytes, date, groupNames, id, name, resetPeriod } from '../arguments.ts';

/** Columns of a CSV file, and fields of an NDJSON line. */
export const importColumns = [
  'user',
  'user_id',
  'limit',
  'expires',
  'reset',
  'anchor',
  'status',
  'groups',
  'credential',
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
 * @throws InvalidArgumentError that names the column at fault.
 */
export function toSubscription(values: ImportValues): ImportedSubscription {
  const userName = read(values, 'user', name);
  const userId = read(values, 'user_id', id);
  if ((userName === undefined) === (userId === undefined)) {
    throw new InvalidArgumentError('user, user_id: one of the two is needed');
  }
  return {
    user: userId === undefined ? { name: userName ?? '' } : { id: userId },
    trafficLimitBytes: read(values, 'limit', bytes) ?? null,
    expiresAt: read(values, 'expires', date) ?? null,
    resetPeriod: read(values, 'reset', resetPeriod),
    anchorAt: read(values, 'anchor', date),
    disabled: read(values, 'status', status) === 'disabled',
    groups: read(values, 'groups', groupNames),
    credential: readCredential(values, 'credential') ?? null,
    links: readLinks(values),
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

/** The other statuses follow from expiry and traffic, so nobody sets them. */
function status(given: string): 'active' | 'disabled' {
  if (given === 'active' || given === 'disabled') return given;
  throw new InvalidArgumentError('It must be active or disabled.');
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
