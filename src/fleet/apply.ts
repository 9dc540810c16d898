import type pg from 'pg';
import { createGroup } from '../groups/groups.ts';
import { setProtocolGroups } from '../groups/membership.ts';
import { findGroups, listGroupNames } from '../groups/names.ts';
import { bumpNodes, bumpSettings } from '../nodes/bump.ts';
import {
  createNodeInTransaction,
  deleteNodeInTransaction,
  type IssuedNode,
  updateNodeInTransaction,
} from '../nodes/change.ts';
import { countLinks, countLinksOfMoves, type LinkCounts } from '../nodes/linked.ts';
import { lockImports } from '../nodes/lock-imports.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import type { BeforeCommit } from '../settings/before-commit.ts';
import { replaceOutbounds } from '../settings/outbounds.ts';
import {
  addProtocolInTransaction,
  removeProtocolInTransaction,
  writeProtocolInTransaction,
} from '../settings/protocols.ts';
import { requireReferences } from '../settings/references.ts';
import { replaceRules } from '../settings/rules.ts';
import { replaceXraySettings } from '../settings/xray-settings.ts';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';
import { inTransaction } from '../stores/postgres.ts';
import type { FleetFile } from './file.ts';
import { toTags } from './inbound-tags.ts';
import { type FleetPlan, type NodePlan, planFleet } from './plan.ts';
import type { PlanLine } from './plan-lines.ts';
import type { ProtocolsPlan } from './plan-protocols.ts';
import { readFleet } from './state.ts';

export interface ApplyOptions {
  /** Whether to remove the nodes that the file does not name. */
  prune: boolean;
  /** Whether to stop after the plan. */
  dryRun: boolean;
  registrationSeconds: number;
  /** Sees the plan before anything changes, and may stop it. */
  onPlan?: (plan: Plan) => Promise<'carry out' | 'stop'>;
  beforeCommit?: BeforeCommit;
}

/** A plan, and how much of it nobody can undo. */
export interface Plan {
  lines: readonly PlanLine[];
  removed: LinkCounts & { nodes: number; protocols: number };
}

export interface AppliedFleet {
  lines: PlanLine[];
  removed: Plan['removed'];
  /** False after a dry run, and if `onPlan` stopped it. */
  isCarriedOut: boolean;
  /** The new nodes, with the codes for their registration. */
  created: (IssuedNode & { name: string })[];
}

/**
 * Brings nodes with everything that they have to what the file declares, in one transaction. Nobody
 * else can change them between its first read and its commit.
 * @throws CoreError INVALID_ARGUMENT naming the lines at fault, before anything changes.
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
  // Fleet files are applied one at a time.
  await lockUntilCommit(client, advisoryLocks.fleet);
  await lockImports(client, 'removing');
  await lockLinks(client, 'protocols');
  // Every change of a node's settings locks its row. So does a heartbeat with a new address, and such
  // heartbeats wait until this transaction ends.
  await client.query('SELECT 1 FROM nodes ORDER BY id FOR NO KEY UPDATE');
  const stored = { nodes: await readFleet(client), groups: await listGroupNames(client) };
  const plan = planFleet(file, stored, options);
  const created: AppliedFleet['created'] = [];
  const removed = await removals(client, plan);
  const answer = await options.onPlan?.({ lines: plan.lines, removed });
  if (options.dryRun || answer === 'stop') {
    return { lines: plan.lines, removed, isCarriedOut: false, created };
  }
  for (const name of plan.groups) await createGroup(client, name);
  for (const node of plan.removed) await deleteNodeInTransaction(client, node.nodeId);
  for (const node of plan.nodes) {
    const issued = await applyNode(client, node, options);
    if (issued !== undefined) created.push({ ...issued, name: node.name });
  }
  return { lines: plan.lines, removed, isCarriedOut: true, created };
}

/** Lines whose links a plan counts one by one. Past it, the sum alone says what ends. */
const countedLinesMax = 200;

/** Counts the links that end with each line, and in sum. */
async function removals(client: pg.PoolClient, plan: FleetPlan): Promise<Plan['removed']> {
  const ending = plan.lines.filter(({ ends }) => ends !== undefined && ends.length > 0);
  for (const line of ending.slice(0, countedLinesMax)) {
    line.links = await countLinks(client, line.ends ?? []);
  }
  const protocols = ending.flatMap(({ ends }) => ends ?? []);
  const sum = await countLinks(client, protocols);
  for (const { links, linksInUse } of await countMoves(client, plan)) {
    sum.links += links;
    sum.linksInUse += linksInUse;
  }
  return { nodes: plan.removed.length, protocols: protocols.length, ...sum };
}

/** Counts the links that end with each line because its protocol leaves groups. */
async function countMoves(client: pg.PoolClient, plan: FleetPlan): Promise<LinkCounts[]> {
  const moving = plan.lines.flatMap((line) => (line.moves === undefined ? [] : [line.moves]));
  // A group that the plan makes has no subscriptions yet.
  const ids = await findGroups(client, [
    ...new Set(moving.flatMap(({ before, after }) => [...before, ...after])),
  ]);
  const idsOf = (names: readonly string[]): number[] =>
    names.flatMap((name) => ids.get(name) ?? []);
  const counts = await countLinksOfMoves(
    client,
    moving.map(({ before, after }) => ({ before: idsOf(before), after: idsOf(after) })),
  );
  let at = 0;
  for (const line of plan.lines) {
    if (line.moves === undefined) continue;
    const links = counts[at];
    if (links !== undefined && links.links > 0) line.links = links;
    at += 1;
  }
  return counts;
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
  if (nodeId === undefined) throw new Error('a node has an id, stored or new');
  const { protocols, outbounds, rules, xray } = plan;
  await applyProtocols(client, nodeId, protocols);
  if (outbounds !== undefined) await replaceOutbounds(client, nodeId, outbounds);
  if (rules !== undefined) await replaceRules(client, nodeId, await toTags(client, nodeId, rules));
  if (xray !== undefined) await replaceXraySettings(client, nodeId, xray);
  await requireReferences(client, nodeId);
  const touched =
    protocols.remove.length > 0 ||
    protocols.create.length > 0 ||
    protocols.change.some((change) => change.changesSettings);
  if (touched || [outbounds, rules, xray].some((part) => part !== undefined)) {
    await bumpSettings(client, nodeId, 'fleet file');
    await options.beforeCommit?.(client, nodeId);
  }
  // A rollback goes on: groups are no settings of the node.
  else if (protocols.change.length > 0) await bumpNodes(client, [nodeId], 'fleet file');
  return issued;
}

/** The plan has checked ports and names together, so two protocols may swap theirs. */
async function applyProtocols(
  client: pg.PoolClient,
  nodeId: number,
  { remove, change, create }: ProtocolsPlan,
): Promise<void> {
  for (const nodeProtocolId of remove) await removeProtocolInTransaction(client, nodeProtocolId);
  await client.query(
    'SET CONSTRAINTS node_protocols_tcp, node_protocols_udp, node_protocols_socket DEFERRED',
  );
  for (const { nodeProtocolId, groups, changesSettings, ...changed } of change) {
    if (changesSettings) await writeProtocolInTransaction(client, nodeProtocolId, changed);
    if (groups !== undefined) await setProtocolGroups(client, nodeProtocolId, groups);
  }
  for (const { groups, ...protocol } of create) {
    const inGroups = groups === undefined ? {} : { groups };
    await addProtocolInTransaction(client, { ...protocol, ...inGroups, nodeId });
  }
}
