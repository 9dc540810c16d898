import type { Agent } from './agent.ts';
import { type Bytes, checkedFields, compareCounters, type Difference, explain } from './check.ts';
import type { Found } from './found.ts';
import {
  addToCell,
  type CellKey,
  type Cells,
  emptySums,
  type IngestKind,
  ingestKinds,
  type Ledger,
  nodeLedger,
  type Sums,
} from './ledger.ts';

/** Expected and found sums of all checks, and every difference. */
export interface Comparison {
  differences: Difference[];
  totals: Record<IngestKind, { expected: Sums; found: Sums }>;
  countersCompared: number;
  /** Requests without an answer that turned out to be stored. */
  unknownStored: number;
}

/**
 * Compares the stores with the ledger: every node's rows of each kind, every subscription's counters,
 * and every node's applied revision.
 */
export function compareStores(
  ledger: Ledger,
  found: Found,
  agents: readonly Agent[],
  subscriptionIds: readonly number[],
): Comparison {
  const comparison: Comparison = {
    differences: [],
    totals: { usage: noTotal(), outbound: noTotal(), session: noTotal() },
    countersCompared: 0,
    unknownStored: 0,
  };
  const usage: Cells = new Map();
  for (const kind of ingestKinds) {
    for (const { node } of agents) {
      const stored = compareNode(comparison, ledger, found, kind, node.nodeId);
      if (kind === 'usage') for (const [key, sums] of stored) addToCell(usage, key, sums);
    }
  }
  const expected = new Map<CellKey, Bytes>();
  for (const id of subscriptionIds) expected.set(id, usage.get(id) ?? emptySums());
  comparison.differences.push(
    ...compareCounters('counter of subscription', expected, found.subscriptions),
  );
  comparison.countersCompared += expected.size * 2;
  for (const agent of agents) comparison.differences.push(...compareState(agent, found));
  for (const line of ledger.unexpected.first) {
    comparison.differences.push({ kind: 'other', where: 'answer', expected: 'none', found: line });
  }
  return comparison;
}

function noTotal(): { expected: Sums; found: Sums } {
  return { expected: emptySums(), found: emptySums() };
}

/** Returns what should be stored of the node: what was acked, and the unknown requests that arrived. */
function compareNode(
  comparison: Comparison,
  ledger: Ledger,
  found: Found,
  kind: IngestKind,
  nodeId: number,
): Cells {
  const { acked, unknown } = nodeLedger(ledger, kind, nodeId);
  const cells = found.kinds[kind].get(nodeId) ?? new Map();
  const explained = explain(
    `${kind} of node ${nodeId}`,
    { acked, unknown },
    cells,
    checkedFields[kind],
  );
  comparison.differences.push(...explained.differences);
  comparison.unknownStored += explained.stored.length;
  if (kind === 'outbound') comparison.countersCompared += acked.size * 2;
  const due: Cells = new Map();
  for (const part of [acked, ...explained.stored]) {
    for (const [key, sums] of part) addToCell(due, key, sums);
  }
  sumInto(comparison.totals[kind].expected, due);
  sumInto(comparison.totals[kind].found, cells);
  return due;
}

function sumInto(total: Sums, cells: Cells): void {
  for (const sums of cells.values()) {
    total.rows += sums.rows;
    total.bytesUp += sums.bytesUp;
    total.bytesDown += sums.bytesDown;
    total.checksum += sums.checksum;
  }
}

/** Compares a node's state in Core with what Core told the node. */
function compareState(agent: Agent, found: Found): Difference[] {
  const { node, config } = agent;
  const state = found.nodes.get(node.nodeId);
  const where = `node ${node.nodeId}`;
  const differences: Difference[] = [];
  const differ = (what: string, expected: unknown, has: unknown): void => {
    if (expected === has) return;
    differences.push({
      kind: 'other',
      where: `${where} ${what}`,
      expected: String(expected),
      found: String(has),
    });
  };
  differ('is there', true, state !== undefined);
  if (state === undefined) return differences;
  differ('wrong clients in its map', 0, config.wrongClients);
  if (config.applied !== undefined && !config.appliedUnknown) {
    differ('applied revision', config.applied, state.appliedRevision);
    differ('sync status', 'synced', state.syncStatus);
    differ('was seen', true, state.isSeen);
  }
  return differences;
}
