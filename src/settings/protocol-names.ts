import type pg from 'pg';
import { z } from 'zod';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';

// A protocol has a name of its own on its node. Fleet files recognise it by that, and rules in a fleet file
// name its inbound by it.

const nameCharsMax = 64;

/**
 * Rules name inbounds by their tag (`in-7`) or by the name of their protocol, so a name must not look like a
 * tag. `api` is the tag of Xray's own interface.
 */
export const protocolName = z
  .string()
  .regex(
    new RegExp(`^[a-z0-9][a-z0-9._-]{0,${nameCharsMax - 1}}$`, 'i'),
    `Must be up to ${nameCharsMax} letters, digits, dots, hyphens and underscores, and begin with a letter or digit`,
  )
  .refine((given) => !/^(in-\d+|api)$/.test(given), 'Must not look like the tag of an inbound');

/** The name of a protocol that nobody named, like `vless-443`. */
export function defaultProtocolName(protocol: VpnProtocol, port: number): string {
  return `${protocol.toLowerCase()}-${port}`;
}

/** A name that is not taken: the wanted one, or the first of `wanted-2`, `wanted-3` and so on. */
export function freeName(wanted: string, taken: ReadonlySet<string>): string {
  let name = wanted;
  for (let count = 2; taken.has(name); count += 1) name = `${wanted}-${count}`;
  return name;
}

/** The names that a node's protocols have. */
export async function takenNames(client: pg.PoolClient, nodeId: number): Promise<Set<string>> {
  const { rows } = await client.query<{ name: string }>(
    'SELECT name FROM node_protocols WHERE node_id = $1',
    [nodeId],
  );
  return new Set(rows.map(({ name }) => name));
}

/**
 * Checks that no other protocol of the node has a name. The caller's transaction must have locked the node.
 * @param nodeProtocolId The protocol itself, if it exists already.
 * @throws CoreError INVALID_ARGUMENT naming the protocol that has the name.
 */
export async function requireNameFreeOnNode(
  client: pg.PoolClient,
  wanted: { nodeId: number; nodeProtocolId?: number; name: string },
): Promise<void> {
  const { nodeId, nodeProtocolId, name } = wanted;
  const { rows } = await client.query<{ id: number }>(
    `SELECT id FROM node_protocols
     WHERE node_id = $1 AND name = $2 AND id IS DISTINCT FROM $3::bigint`,
    [nodeId, name, nodeProtocolId ?? null],
  );
  const other = rows[0];
  if (other === undefined) return;
  throw new CoreError(
    'INVALID_ARGUMENT',
    `Protocol ${other.id} of node ${nodeId} is called ${name} already; give another --name`,
  );
}
