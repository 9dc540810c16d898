import { type CellKey, type Cells, emptySums, type IngestKind, type Sums } from './ledger.ts';

/** One point at which the stores differ from the ledger. */
export interface Difference {
  /** `lost`: less than was acked. `doubled`: more than was ever sent. `other`: anything else. */
  kind: 'lost' | 'doubled' | 'other';
  where: string;
  expected: string;
  found: string;
}

/** One of the sums of a cell. If Core keeps only counters, there are no rows to check. */
type Field = keyof Sums;

/**
 * For up to this many unknown requests of one node the check tries all subsets, which are 2^n. If there are
 * more, it compares each cell with its bounds instead.
 */
const subsetUnknownMax = 12;

interface Explained {
  differences: Difference[];
  /** The unknown requests that turned out to be stored. */
  stored: Cells[];
}

/**
 * Compares the sums of a node's rows with what was acked. Each request without an answer may be stored
 * once as a whole, or not at all. So there must be a subset of these requests that, added to what was
 * acked, gives exactly what was found.
 */
export function explain(
  where: string,
  ledger: { acked: Cells; unknown: readonly Cells[] },
  found: Cells,
  fields: readonly Field[],
): Explained {
  const surplus = subtract(found, ledger.acked);
  if (ledger.unknown.length <= subsetUnknownMax) {
    const subsets = 2 ** ledger.unknown.length;
    for (let mask = 0; mask < subsets; mask += 1) {
      const stored = ledger.unknown.filter((_, index) => (mask & (1 << index)) !== 0);
      if (isSum(surplus, stored, fields)) return { differences: [], stored };
    }
  }
  const differences = outOfBounds(where, ledger, surplus, fields);
  if (differences.length === 0 && ledger.unknown.length <= subsetUnknownMax) {
    differences.push({
      kind: 'other',
      where,
      expected: `what was acked and any of ${ledger.unknown.length} unknown requests as a whole`,
      found: 'a part of a request',
    });
  }
  return { differences, stored: [] };
}

/** `found - acked`, by cell. */
function subtract(found: Cells, acked: Cells): Cells {
  const surplus: Cells = new Map();
  for (const key of new Set([...found.keys(), ...acked.keys()])) {
    const has = found.get(key) ?? emptySums();
    const due = acked.get(key) ?? emptySums();
    const cell = {
      rows: has.rows - due.rows,
      bytesUp: has.bytesUp - due.bytesUp,
      bytesDown: has.bytesDown - due.bytesDown,
      checksum: has.checksum - due.checksum,
    };
    if (cell.rows !== 0n || cell.bytesUp !== 0n || cell.bytesDown !== 0n || cell.checksum !== 0n) {
      surplus.set(key, cell);
    }
  }
  return surplus;
}

function isSum(surplus: Cells, parts: readonly Cells[], fields: readonly Field[]): boolean {
  const keys = new Set(surplus.keys());
  for (const part of parts) for (const key of part.keys()) keys.add(key);
  for (const key of keys) {
    for (const field of fields) {
      if ((surplus.get(key)?.[field] ?? 0n) !== sumOf(parts, key, field)) return false;
    }
  }
  return true;
}

function sumOf(parts: readonly Cells[], key: CellKey, field: Field): bigint {
  let sum = 0n;
  for (const part of parts) sum += part.get(key)?.[field] ?? 0n;
  return sum;
}

/** One difference for each field that is less than what was acked or more than all that was sent. */
function outOfBounds(
  where: string,
  ledger: { acked: Cells; unknown: readonly Cells[] },
  surplus: Cells,
  fields: readonly Field[],
): Difference[] {
  const differences: Difference[] = [];
  for (const [key, cell] of surplus) {
    for (const field of fields) {
      const spare = sumOf(ledger.unknown, key, field);
      const over = cell[field];
      if (over >= 0n && over <= spare) continue;
      const due = ledger.acked.get(key)?.[field] ?? 0n;
      differences.push({
        kind: over < 0n ? 'lost' : 'doubled',
        where: `${where} ${key} ${field}`,
        expected: spare === 0n ? String(due) : `${due} to ${due + spare}`,
        found: String(due + over),
      });
    }
  }
  return differences;
}

export interface Bytes {
  bytesUp: bigint;
  bytesDown: bigint;
}

/** Compares counters with what they should be. A missing counter counts as zero. */
export function compareCounters(
  where: string,
  expected: ReadonlyMap<CellKey, Bytes>,
  found: ReadonlyMap<CellKey, Bytes>,
): Difference[] {
  const differences: Difference[] = [];
  for (const key of new Set([...expected.keys(), ...found.keys()])) {
    for (const field of ['bytesUp', 'bytesDown'] as const) {
      const due = expected.get(key)?.[field] ?? 0n;
      const has = found.get(key)?.[field] ?? 0n;
      if (due === has) continue;
      differences.push({
        kind: has < due ? 'lost' : 'doubled',
        where: `${where} ${key} ${field}`,
        expected: String(due),
        found: String(has),
      });
    }
  }
  return differences;
}

/** The fields that the store of each kind has. */
export const checkedFields: Record<IngestKind, readonly Field[]> = {
  usage: ['rows', 'bytesUp', 'bytesDown', 'checksum'],
  session: ['rows', 'checksum'],
  outbound: ['bytesUp', 'bytesDown'],
};

/** `lost usage node 3 subscription 12 bytesUp: expected 10, found 5`. */
export function differenceLine(difference: Difference): string {
  const { kind, where, expected, found } = difference;
  return `${kind === 'other' ? '' : `${kind} `}${where}: expected ${expected}, found ${found}`;
}
