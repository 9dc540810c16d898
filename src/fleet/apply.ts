import type pg from 'pg';
import { bumpSettings } from '../nodes/bump.ts';
import {
  createNodeInTransaction,
  deleteNodeInTransaction,
  type IssuedNode,
  updateNodeInTransaction,
} from '../nodes/change.ts';
import { countLinks, type LinkCounts } from '../nodes/effects.ts';
import { replaceOutbounds } from '../settings/outbounds.ts';
import {
  addProtocolInTransaction,
  removeProtocolInTransaction,
  setProtocolInTransaction,
} from '../settings/protocols.ts';
import { replaceRules, requireRuleTargets } from '../settings/rules.ts';
import { lockFleet, lockLinks } from '../stores/locks.ts';
import { inTransaction } from '../stores/postgres.ts';
import type { FleetFile } from './file.ts';
import { type FleetPlan, type NodePlan, type PlanLine, planFleet } from './plan.ts';
import { readFleet } from './state.ts';

export interface ApplyOptions {
  /** Also remove the nodes that the file does not name. */
  prune: boolean;
  /** Stop after the plan. */
  dryRun: boolean;
  registrationSeconds: number;
  /** Called with the plan before anything changes; nothing does if it answers `stop`. */
  onPlan?: (plan: Plan) => Promise<'carry out' | 'stop'>;
}

/** A plan, and what of it cannot be undone. */
export interface Plan {
  lines: readonly PlanLine[];
  removed: LinkCounts & { nodes: number; protocols: number };
}

export interface AppliedFleet {
  lines: PlanLine[];
  /** False after a dry run, and if `onPlan` stopped it. */
  isCarriedOut: boolean;
  /** Nodes that were created, with the codes that they register with. */
  created: (IssuedNode & { name: string })[];
}

/**
 * Brings nodes, protocols, outbounds and rules to what the file declares, all or nothing. From the
 * reading of the state to the commit nobody else changes any of it.
 * @throws CoreError INVALID_ARGUMENT naming the lines at fault, before anything is changed.
 */
export async function applyFleet(
  pool: pg.Pool,
  file: FleetFile,
  options: ApplyOptions,
): Promise<AppliedFleet> {
  return inTransaction(pool, (client) => applyLocked(client, file, options));
}

async function applyLocked(
  client: pg.PoolClient,
  file: FleetFile,
  options: ApplyOptions,
): Promise<AppliedFleet> {
  await lockFleet(client);
  await lockLinks(client, 'protocols');
  // Whoever changes a node's settings holds its row. Heartbeats wait for as long as this takes where
  // one of them has a new address.
  await client.query('SELECT 1 FROM nodes ORDER BY id FOR NO KEY UPDATE');
  const plan = planFleet(file, await readFleet(client), options);
  const created: AppliedFleet['created'] = [];
  const answer = await options.onPlan?.({
    lines: plan.lines,
    removed: await removals(client, plan),
  });
  if (options.dryRun || answer === 'stop') {
    return { lines: plan.lines, isCarriedOut: false, created };
  }
  for (const node of plan.removed) await deleteNodeInTransaction(client, node.nodeId);
  for (const node of plan.nodes) {
    const issued = await applyNode(client, node, options);
    if (issued !== undefined) created.push({ ...issued, name: node.name });
  }
  return { lines: plan.lines, isCarriedOut: true, created };
}

/** Protocols that are removed, those of removed nodes among them, and the links that end with them. */
async function removals(client: pg.PoolClient, plan: FleetPlan): Promise<Plan['removed']> {
  const protocols = [
    ...plan.removed.flatMap((node) => node.protocols.map((protocol) => protocol.nodeProtocolId)),
    ...plan.nodes.flatMap((node) => node.protocols.remove),
  ];
  const links = await countLinks(client, protocols);
  return { nodes: plan.removed.length, protocols: protocols.length, ...links };
}

async function applyNode(
  client: pg.PoolClient,
  plan: NodePlan,
  options: ApplyOptions,
): Promise<IssuedNode | undefined> {
  const { stored, name, fields } = plan;
  let issued: IssuedNode | undefined;
  if (stored === undefined) {
    const node = { name, region: '', host: '', ip: '', ...fields };
    issued = await createNodeInTransaction(client, node, options);
  } else if (fields !== undefined) await updateNodeInTransaction(client, stored.nodeId, fields);
  const nodeId = stored?.nodeId ?? issued?.nodeId;
  if (nodeId === undefined) throw new Error('a node is stored or was just created');
  const { protocols, outbounds, rules } = plan;
  if (outbounds !== undefined) await replaceOutbounds(client, nodeId, outbounds);
  if (rules !== undefined) await replaceRules(client, nodeId, rules);
  await requireRuleTargets(client, nodeId);
  for (const nodeProtocolId of protocols.remove)
    await removeProtocolInTransaction(client, nodeProtocolId);
  for (const { nodeProtocolId, settings } of protocols.change) {
    await setProtocolInTransaction(client, nodeProtocolId, { settings });
  }
  for (const protocol of protocols.create)
    await addProtocolInTransaction(client, { ...protocol, nodeId });
  const touched = protocols.remove.length + protocols.change.length + protocols.create.length;
  if (touched > 0 || outbounds !== undefined || rules !== undefined) {
    await bumpSettings(client, nodeId, 'fleet file');
  }
  return issued;
}
