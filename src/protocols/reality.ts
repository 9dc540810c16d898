import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import type { reality } from './parts.ts';
import { generateX25519, x25519PublicKey } from './x25519.ts';

export type RealitySettings = z.output<typeof reality>;

export interface SettingsFault {
  path: readonly PropertyKey[];
  message: string;
}

/**
 * REALITY settings with a key pair, a short id and server names made where none were given, or what
 * keeps them from being completed.
 */
export function completeReality(
  given: RealitySettings,
): { reality: RealitySettings } | { fault: SettingsFault } {
  if (given.privateKey === undefined && given.publicKey !== undefined) {
    return fault('privateKey', 'Is needed with a public key');
  }
  const pair =
    given.privateKey === undefined
      ? generateX25519()
      : { privateKey: given.privateKey, publicKey: x25519PublicKey(given.privateKey) };
  if (given.publicKey !== undefined && given.publicKey !== pair.publicKey) {
    return fault('publicKey', 'Does not belong to the private key');
  }
  const serverNames = given.serverNames ?? serverNamesOf(given.target);
  if (serverNames.length === 0) {
    return fault('serverNames', 'Is needed where the target is an IP address');
  }
  const shortIds = given.shortIds ?? [randomBytes(8).toString('hex')];
  return { reality: { ...given, serverNames, ...pair, shortIds } };
}

function fault(place: string, message: string): { fault: SettingsFault } {
  return { fault: { path: ['reality', place], message } };
}

/** The host of a target; none where it is a bare IP address, which cannot be a TLS server name. */
function serverNamesOf(target: string): string[] {
  const host = target.slice(0, target.lastIndexOf(':'));
  return host.startsWith('[') || /^[0-9.]+$/.test(host) ? [] : [host];
}
