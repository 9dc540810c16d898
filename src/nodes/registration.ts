import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import type pg from 'pg';
import type { RegisterNodeDto } from '../contract/node.ts';
import { CoreError } from '../errors.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { bumpNodes } from './bump.ts';
import { notifyNode } from './channels.ts';
import { hashAuthKey } from './directory.ts';

/** Crockford's base 32: no letter that people take for another letter or for a digit. */
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
 * SHA-256 of a code, for `registration_codes.code_hash`. People may type a code in any case, with or
 * without white space and hyphens, and may type O for 0 and I or L for 1.
 */
export function hashCode(code: string): Buffer {
  const normalised = code
    .toUpperCase()
    .replaceAll(/[\s-]/g, '')
    .replaceAll('O', '0')
    .replaceAll(/[IL]/g, '1');
  return createHash('sha256').update(normalised).digest();
}

/** Issues a node's code. A node has one at most, so its earlier code stops working. */
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
  assert(row !== undefined, 'an upsert with RETURNING returns its row');
  return { code, expiresAt: row.expires_at };
}

/**
 * Trades a registration code for an auth key. The code works once, even if the answer gets lost: a
 * node that never received its key needs a new code (`core node rekey`).
 *
 * Core keeps the name, host and region that the node reports next to those of the operator. It never
 * replaces the operator's, because operators and fleet files identify nodes by them. A reported host
 * or region counts if the operator left it empty. A reported address replaces the one before, unless
 * it is empty.
 * @throws CoreError REGISTRATION_REFUSED, the same for an unknown, a used and an expired code.
 */
export async function registerNode(
  pool: pg.Pool,
  dto: RegisterNodeDto,
): Promise<{ authKey: string; nodeId: number }> {
  const authKey = randomBytes(32).toString('base64url');
  const codeHash = hashCode(dto.code);
  if (!(await isValidCode(pool, codeHash))) throw refused();
  const nodeId = await inTransaction(pool, async (client) => {
    const used = await client.query<{ node_id: number; fresh: boolean }>(
      `DELETE FROM registration_codes WHERE code_hash = $1
       RETURNING node_id, expires_at > now() AS fresh`,
      [codeHash],
    );
    const row = used.rows[0];
    if (row === undefined || !row.fresh) return undefined;
    await client.query(
      `UPDATE nodes SET auth_key_hash = $2, registered_at = now(), last_seen_at = now(),
         reported_name = $3, reported_host = $4, reported_region = $6,
         ip = coalesce(nullif($5, ''), ip)
       WHERE id = $1`,
      [row.node_id, hashAuthKey(authKey), dto.name, dto.host, dto.ip, dto.region],
    );
    await notifyNode(client, row.node_id);
    // The host or the address may be part of its configuration.
    await bumpNodes(client, [row.node_id], 'registration');
    return row.node_id;
  });
  if (nodeId === undefined) throw refused();
  return { authKey, nodeId };
}

/** Checks first without a transaction, so that a caller who guesses many codes costs little. */
async function isValidCode(pool: pg.Pool, codeHash: Buffer): Promise<boolean> {
  const found = await pool.query(
    'SELECT FROM registration_codes WHERE code_hash = $1 AND expires_at > now()',
    [codeHash],
  );
  return found.rowCount === 1;
}

function refused(): CoreError {
  return new CoreError('REGISTRATION_REFUSED', 'The registration code is not valid');
}
