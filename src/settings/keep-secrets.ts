import { isDeepStrictEqual } from 'node:util';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { validateProtocolSettings } from '../protocols/settings.ts';

type Json = Record<string, unknown>;

/**
 * What is to be stored of new settings for a protocol that exists: checked, with defaults, and with
 * the stored value wherever Core would otherwise make up a new one. Keys and short ids are in the
 * hands of clients, so a change of, say, the sniffing must not replace them.
 *
 * What Core makes up is found by looking, so that it holds for every protocol: two validations of
 * the same settings differ just there. A stored value that does not fit the new settings (a key of
 * another length) is not kept.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function settingsWithSecretsKept(
  protocol: VpnProtocol,
  given: Json,
  stored: unknown,
): Record<string, unknown> {
  const one = validateProtocolSettings(protocol, given);
  const other = validateProtocolSettings(protocol, given);
  if (isDeepStrictEqual(one, other)) return one;
  try {
    return validateProtocolSettings(protocol, filled(given, one, other, stored) as Json);
  } catch (thrown) {
    if (thrown instanceof CoreError && thrown.code === 'INVALID_ARGUMENT') return one;
    throw thrown;
  }
}

/** `given` with the stored value at every place where `one` and `other` differ. Arrays are whole. */
function filled(given: unknown, one: unknown, other: unknown, stored: unknown): unknown {
  if (isDeepStrictEqual(one, other)) return given;
  if (!isPlainObject(one) || !isPlainObject(other)) return stored === undefined ? given : stored;
  const result: Json = isPlainObject(given) ? { ...given } : {};
  const storedFields = isPlainObject(stored) ? stored : {};
  for (const name of Object.keys(one)) {
    const value = filled(result[name], one[name], other[name], storedFields[name]);
    if (value !== undefined) result[name] = value;
  }
  return result;
}

export function isPlainObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
