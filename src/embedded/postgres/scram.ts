import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';

/** What Postgres uses by default. */
const iterations = 4_096;
const saltBytes = 16;
const keyBytes = 32;

/**
 * What Postgres stores of a password for scram-sha-256. It checks a password and does not tell it, so
 * it may stand in a statement, which a log could quote. The password is letters, digits, `-` and `_`:
 * SASLprep, which others would need, leaves those as they are.
 *
 * Source: RFC 5803; src/common/scram-common.c of Postgres.
 */
export function scramVerifier(password: string, salt: Buffer = randomBytes(saltBytes)): string {
  const salted = pbkdf2Sync(password, salt, iterations, keyBytes, 'sha256');
  const hmac = (text: string): Buffer => createHmac('sha256', salted).update(text).digest();
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64');
  const serverKey = hmac('Server Key').toString('base64');
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${serverKey}`;
}
