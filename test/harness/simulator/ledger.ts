/** The three kinds of post that leave rows or counters. */
export const ingestKinds = ['usage', 'outbound', 'session'] as const;
export type IngestKind = (typeof ingestKinds)[number];

/** Every kind of request that an agent makes. */
export type RequestKind = IngestKind | 'register' | 'heartbeat' | 'config' | 'applied' | 'probe';

/** The subject of a cell: a subscription's id (0 for none), a tag, or `PROTOCOL/EVENT`. */
export type CellKey = number | string;

/**
 * Sums over rows. `checksum` adds up all other columns (ids and times), so that a row with a wrong user or
 * second makes a difference, too.
 */
export interface Sums {
  rows: bigint;
  bytesUp: bigint;
  bytesDown: bigint;
  checksum: bigint;
}

export type Cells = Map<CellKey, Sums>;

/** What one node sent of one kind. It has sums only, so it does not grow with the rows sent. */
interface NodeLedger {
  acked: Cells;
  /** The cells of each request without an answer. It may be stored once, or not at all. */
  unknown: Cells[];
}

export interface Ledger {
  kinds: Record<IngestKind, Map<number, NodeLedger>>;
  tally: Tally;
  /** Answers that no valid request should get. All are counted, the first few are kept. */
  unexpected: { count: number; first: string[] };
}

/** Counts for the progress line and the final table. */
interface Tally {
  /** HTTP attempts, answered or not. */
  attempts: number;
  retries: number;
  unanswered: number;
  duplicates: number;
  cuts: number;
  probes: number;
  ackedRequests: number;
  ackedRows: number;
  unknownRequests: number;
  /** Requests that got only a 503 or a closed port until the end of the run, so they are not stored. */
  undelivered: number;
  requestsByKind: Map<RequestKind, number>;
  answersByStatus: Map<number, number>;
}

export const unexpectedKeptMax = 20;

export function createLedger(): Ledger {
  return {
    kinds: { usage: new Map(), outbound: new Map(), session: new Map() },
    tally: {
      attempts: 0,
      retries: 0,
      unanswered: 0,
      duplicates: 0,
      cuts: 0,
      probes: 0,
      ackedRequests: 0,
      ackedRows: 0,
      unknownRequests: 0,
      undelivered: 0,
      requestsByKind: new Map(),
      answersByStatus: new Map(),
    },
    unexpected: { count: 0, first: [] },
  };
}

export function emptySums(): Sums {
  return { rows: 0n, bytesUp: 0n, bytesDown: 0n, checksum: 0n };
}

/** Adds `sums` to the cell under `key`, which it makes if there is none. */
export function addToCell(cells: Cells, key: CellKey, sums: Readonly<Sums>): void {
  const cell = cells.get(key);
  if (cell === undefined) {
    cells.set(key, { ...sums });
    return;
  }
  cell.rows += sums.rows;
  cell.bytesUp += sums.bytesUp;
  cell.bytesDown += sums.bytesDown;
  cell.checksum += sums.checksum;
}

function addCells(into: Cells, from: Cells): void {
  for (const [key, sums] of from) addToCell(into, key, sums);
}

/** What the ledger has of a node. It makes an empty entry if the node has sent nothing. */
export function nodeLedger(ledger: Ledger, kind: IngestKind, nodeId: number): NodeLedger {
  const nodes = ledger.kinds[kind];
  let node = nodes.get(nodeId);
  if (node === undefined) {
    node = { acked: new Map(), unknown: [] };
    nodes.set(nodeId, node);
  }
  return node;
}

/** Records a post that was answered with 200: each of its rows has to be there once. */
export function recordAcked(
  ledger: Ledger,
  post: { kind: IngestKind; nodeId: number; rows: number; cells: Cells },
): void {
  addCells(nodeLedger(ledger, post.kind, post.nodeId).acked, post.cells);
  ledger.tally.ackedRequests += 1;
  ledger.tally.ackedRows += post.rows;
}

/** Records a post without an answer: its rows may be there once, or not at all. */
export function recordUnknown(
  ledger: Ledger,
  post: { kind: IngestKind; nodeId: number; cells: Cells },
): void {
  nodeLedger(ledger, post.kind, post.nodeId).unknown.push(post.cells);
  ledger.tally.unknownRequests += 1;
}

/** Records an answer that breaks the contract, in one line. */
export function recordUnexpected(ledger: Ledger, line: string): void {
  ledger.unexpected.count += 1;
  if (ledger.unexpected.first.length < unexpectedKeptMax) ledger.unexpected.first.push(line);
}

export function countUp<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

/** The sum of all acked cells of a kind. */
export function ackedTotal(ledger: Ledger, kind: IngestKind): Sums {
  const total: Cells = new Map();
  for (const node of ledger.kinds[kind].values()) {
    for (const sums of node.acked.values()) addToCell(total, 'total', sums);
  }
  return total.get('total') ?? emptySums();
}
