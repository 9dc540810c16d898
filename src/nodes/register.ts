import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import type { RegisterNodeDto } from '../contract/node.ts';
import { CoreError } from '../errors.ts';
import { inTransaction } from '../stores/postgres.ts';
import { bumpNodes } from './bump.ts';
import { hashCode } from './codes.ts';
import { hashAuthKey } from './directory.ts';
import { notifyNode } from './require.ts';

/**
 * Trades a registration code for an auth key. The code is used up, whatever becomes of the answer:
 * a node that never got it needs a new code (`core node rekey`).
 *
 * What it says of its name, host and region is kept beside what the operator set, and replaces none of
 * it: the names are what operators and fleet files know nodes by. A host or region that the operator left
 * empty is the reported one. The address is the newest that the node said; an empty one says nothing.
 * @throws CoreError REGISTRATION_REFUSED for an unknown, used or expired code alike.
 */
export async function registerNode(
  pool: pg.Pool,
  dto: RegisterNodeDto,
): Promise<{ authKey: string; nodeId: number }> {
  const authKey = randomBytes(32).toString('base64url');
  const codeHash = hashCode(dto.code);
  if (!(await isGood(pool, codeHash))) throw refused();
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
    // Its host or address may stand in its configuration.
    await bumpNodes(client, [row.node_id], 'registration');
    return row.node_id;
  });
  if (nodeId === undefined) throw refused();
  return { authKey, nodeId };
}

/** A wrong code costs one look-up by a key and no transaction, since whoever guesses may send many. */
async function isGood(pool: pg.Pool, codeHash: Buffer): Promise<boolean> {
  const found = await pool.query(
    'SELECT FROM registration_codes WHERE code_hash = $1 AND expires_at > now()',
    [codeHash],
  );
  return found.rowCount === 1;
}

function refused(): CoreError {
  return new CoreError('REGISTRATION_REFUSED', 'The registration code is not valid');
}
