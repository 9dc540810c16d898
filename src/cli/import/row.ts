import { InvalidArgumentError } from 'commander';
import type { ImportedSubscription } from '../../subscriptions/import.ts';
import type { GivenLink } from '../../subscriptions/import-links.ts';
import { bytes, date, id, name, resetPeriod, uuid } from '../arguments.ts';

/** Columns of a CSV file, and fields of an NDJSON line. */
export const importColumns = [
  'user',
  'user_id',
  'limit',
  'expires',
  'reset',
  'anchor',
  'status',
] as const;
/** Holds the UUID of the link to the protocol with this id. */
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
    links: readLinks(values),
  };
}

function readLinks(values: ImportValues): GivenLink[] {
  const links: GivenLink[] = [];
  for (const column of Object.keys(values) as ImportColumn[]) {
    const protocolId = linkColumn.exec(column)?.[1];
    const given = protocolId === undefined ? undefined : read(values, column, linkUuid);
    if (given === undefined) continue;
    const same = links.find((link) => link.uuid === given);
    if (same !== undefined) {
      const message = `${column}: the UUID is that of link_${same.nodeProtocolId}, too`;
      throw new InvalidArgumentError(message);
    }
    links.push({ nodeProtocolId: Number(protocolId), uuid: given });
  }
  return links;
}

/** A UUID, or its 32 hex digits without dashes, which is how an MTProto secret is written. */
function linkUuid(given: string): string {
  const parts = /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/i.exec(given);
  return uuid(parts === null ? given : parts.slice(1).join('-'));
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
