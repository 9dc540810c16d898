import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import type { Queryable } from '../stores/postgres.ts';

/** Crockford's base 32: no letter that reads as another letter or digit. */
const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const groups = 4;
const groupChars = 5;

/** A registration code as the operator sees it: 100 random bits as XXXXX-XXXXX-XXXXX-XXXXX. */
export function newCode(): string {
  assert(alphabet.length === 32, 'five bits a character');
  const chars = [...randomBytes(groups * groupChars)].map((byte) => alphabet.charAt(byte & 31));
  return Array.from({ length: groups }, (_, group) =>
    chars.slice(group * groupChars, (group + 1) * groupChars).join(''),
  ).join('-');
}

/**
 * SHA-256 of a code, as stored in `registration_codes.code_hash`. Case, white space, hyphens and
 * the letters that the alphabet leaves out on purpose (O, I, L) do not matter to whoever types it.
 */
export function hashCode(code: string): Buffer {
  const normalised = code
    .toUpperCase()
    .replaceAll(/[\s-]/g, '')
    .replaceAll('O', '0')
    .replaceAll(/[IL]/g, '1');
  return createHash('sha256').update(normalised).digest();
}

/** Issues the node's one code; a code it had before is dead from then on. */
export async function issueCode(
  db: Queryable,
  nodeId: number,
  registrationSeconds: number,
): Promise<{ code: string; expiresAt: Date }> {
  const code = newCode();
  const { rows } = await db.query<{ expires_at: Date }>(
    `INSERT INTO registration_codes (code_hash, node_id, expires_at)
     VALUES ($1, $2, now() + make_interval(secs => $3))
     ON CONFLICT (node_id) DO UPDATE
       SET code_hash = excluded.code_hash, expires_at = excluded.expires_at
     RETURNING expires_at`,
    [hashCode(code), nodeId, registrationSeconds],
  );
  const row = rows[0];
  assert(row !== undefined, 'an upsert returns its row');
  return { code, expiresAt: row.expires_at };
}
