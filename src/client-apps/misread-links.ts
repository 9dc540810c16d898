import type { Connection } from './connection.ts';

// What an app that people use reads otherwise in a share link than the link says. No form of the link helps. A
// profile of the subscription page says it right, or leaves the connection out. Runs with mihomo 1.19.26 showed
// each: docs/conformance.md.

/** What mihomo's converter leaves as it is in the user part of a URI. A colon inside is one that Core writes. */
const plainInMihomo = /^[\w.~$&+,;=-]+(?::[\w.~$&+,;=-]+)?$/;

/** What apps misread in a share link, a sentence or two each. */
export function misreadings(connection: Connection): string[] {
  return connection.protocol === 'HYSTERIA2' ? passwordMisreadings(connection.password) : [];
}

/** What apps misread in the Hysteria2 link that has this credential. */
export function passwordMisreadings(password: string): string[] {
  if (plainInMihomo.test(password)) return [];
  return [
    'mihomo and the apps on it misread the password in a share link of Hysteria2 unless it has nothing but letters, digits and -._~$&+,;= in it, and one colon. Give them the page of the subscription (core subscription page), or give another credential.',
  ];
}
