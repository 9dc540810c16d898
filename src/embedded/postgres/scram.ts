import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';

/** Postgres' own default. */
const iterations = 4_096;
const saltBytes = 16;
const keyBytes = 32;

/**
 * The value that Postgres stores for a password of scram-sha-256. Nobody can compute the password from it,
 * so it may be in a statement that a log quotes. The password consists of letters, digits, `-` and `_`.
 * SASLprep, which this function does not do, would leave these as they are.
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
