import { createHash, randomBytes } from 'node:crypto';

const tokenBytes = 18;

/** A token for the address of a page: 144 random bits as 24 characters. */
export function newToken(): string {
  return randomBytes(tokenBytes).toString('base64url');
}

/** What Core keeps of a token: its SHA-256. */
export function tokenHash(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** Whether a token of another panel may be a token of Core: nobody finds 16 random characters by guessing. */
export function isToken(given: string): boolean {
  return /^[\w-]{16,64}$/.test(given);
}
