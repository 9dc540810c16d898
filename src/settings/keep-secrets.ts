import { isDeepStrictEqual } from 'node:util';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { isObject } from '../protocols/raw.ts';
import { validateProtocolSettings } from '../protocols/settings.ts';

type Json = Record<string, unknown>;

/**
 * New settings for a protocol that exists, checked and with defaults. If Core would generate a value
 * (a key, a short id), the stored one stays: clients have it already, so a change of another setting
 * must not replace it.
 *
 * Two validations of the same settings differ exactly at the generated values, so this works for every
 * protocol. A stored value that does not fit the new settings, such as a key of another length, gives
 * way to a generated one.
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

/** `given` with the stored value wherever `one` and `other` differ. An array is one value. */
function filled(given: unknown, one: unknown, other: unknown, stored: unknown): unknown {
  if (isDeepStrictEqual(one, other)) return given;
  if (!isObject(one) || !isObject(other)) return stored === undefined ? given : stored;
  const result: Json = isObject(given) ? { ...given } : {};
  const storedFields = isObject(stored) ? stored : {};
  for (const name of Object.keys(one)) {
    const value = filled(result[name], one[name], other[name], storedFields[name]);
    if (value !== undefined) result[name] = value;
  }
  return result;
}
