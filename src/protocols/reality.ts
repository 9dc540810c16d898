import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import type { reality } from './parts.ts';
import { generateX25519, x25519PublicKey } from './x25519.ts';

type RealitySettings = z.output<typeof reality>;

export interface SettingsFault {
  path: readonly PropertyKey[];
  message: string;
}

/**
 * Completes REALITY settings: it generates a key pair and a short id if none were given, and takes the
 * server name from the target. The answer is a fault if the settings contradict each other.
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
    return fault('serverNames', 'Is needed if the target is an IP address');
  }
  const shortIds = given.shortIds ?? [randomBytes(8).toString('hex')];
  return { reality: { ...given, serverNames, ...pair, shortIds } };
}

function fault(place: string, message: string): { fault: SettingsFault } {
  return { fault: { path: ['reality', place], message } };
}

/** The host of a target. None if it is an IP address, which cannot be a TLS server name. */
function serverNamesOf(target: string): string[] {
  const host = target.slice(0, target.lastIndexOf(':'));
  return host.startsWith('[') || /^[0-9.]+$/.test(host) ? [] : [host];
}
