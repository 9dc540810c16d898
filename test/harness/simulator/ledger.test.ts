import t from 'tap';
import { compareCounters, differenceLine, explain } from './check.ts';
import {
  ackedTotal,
  addToCell,
  type Cells,
  createLedger,
  nodeLedger,
  recordAcked,
  recordUnexpected,
  recordUnknown,
  unexpectedKeptMax,
} from './ledger.ts';

const fields = ['rows', 'bytesUp', 'bytesDown', 'checksum'] as const;

/** Cells from `[key, rows, up, down, checksum]`. */
function cells(
  ...rows: [key: number | string, ...sums: [number, number, number, number]][]
): Cells {
  const made: Cells = new Map();
  for (const [key, count, up, down, checksum] of rows) {
    addToCell(made, key, {
      rows: BigInt(count),
      bytesUp: BigInt(up),
      bytesDown: BigInt(down),
      checksum: BigInt(checksum),
    });
  }
  return made;
}

t.test('the ledger adds up what was acked, and keeps each unknown request by itself', async (t) => {
  const ledger = createLedger();
  const first = cells([7, 1, 10, 100, 5], [8, 2, 1, 1, 1]);
  recordAcked(ledger, { kind: 'usage', nodeId: 1, rows: 3, cells: first });
  recordAcked(ledger, { kind: 'usage', nodeId: 1, rows: 1, cells: cells([7, 1, 5, 50, 6]) });
  recordAcked(ledger, { kind: 'usage', nodeId: 2, rows: 1, cells: cells([7, 1, 1, 1, 1]) });
  recordUnknown(ledger, { kind: 'usage', nodeId: 1, cells: cells([7, 1, 9, 9, 9]) });
  t.strictSame(nodeLedger(ledger, 'usage', 1).acked, cells([7, 2, 15, 150, 11], [8, 2, 1, 1, 1]));
  t.strictSame(nodeLedger(ledger, 'usage', 1).unknown, [cells([7, 1, 9, 9, 9])]);
  t.strictSame(
    first,
    cells([7, 1, 10, 100, 5], [8, 2, 1, 1, 1]),
    'the ledger does not change the request',
  );
  t.strictSame(ackedTotal(ledger, 'usage'), {
    rows: 5n,
    bytesUp: 17n,
    bytesDown: 152n,
    checksum: 13n,
  });
  t.equal(ledger.tally.ackedRequests, 3);
  t.equal(ledger.tally.ackedRows, 5);
  t.equal(ledger.tally.unknownRequests, 1);
  t.equal(ackedTotal(ledger, 'session').rows, 0n);
});

t.test('sums past 2^53 stay exact', async (t) => {
  const ledger = createLedger();
  const most = Number.MAX_SAFE_INTEGER;
  for (let count = 0; count < 3; count += 1) {
    recordAcked(ledger, { kind: 'usage', nodeId: 1, rows: 1, cells: cells([7, 1, most, most, 1]) });
  }
  t.equal(ackedTotal(ledger, 'usage').bytesUp, 27_021_597_764_222_973n);
});

t.test('unexpected answers are all counted and the first ones kept', async (t) => {
  const ledger = createLedger();
  for (let index = 0; index < unexpectedKeptMax + 5; index += 1) {
    recordUnexpected(ledger, `answer ${index}`);
  }
  t.equal(ledger.unexpected.count, unexpectedKeptMax + 5);
  t.equal(ledger.unexpected.first.length, unexpectedKeptMax);
});

t.test('there is no difference if what was found is what was acked', async (t) => {
  const acked = cells([7, 2, 10, 20, 30], [0, 1, 1, 1, 1]);
  const { differences, stored } = explain('usage', { acked, unknown: [] }, acked, fields);
  t.strictSame(differences, []);
  t.strictSame(stored, []);
});

t.test(
  'a lost row, a doubled row, a changed column and a row of nobody are differences',
  async (t) => {
    const acked = cells([7, 2, 10, 20, 30]);
    const lines = (found: Cells): string[] =>
      explain('usage of node 1', { acked, unknown: [] }, found, fields).differences.map(
        differenceLine,
      );
    t.strictSame(lines(cells([7, 1, 4, 20, 30])), [
      'lost usage of node 1 7 rows: expected 2, found 1',
      'lost usage of node 1 7 bytesUp: expected 10, found 4',
    ]);
    t.strictSame(lines(cells([7, 3, 10, 20, 30])), [
      'doubled usage of node 1 7 rows: expected 2, found 3',
    ]);
    t.strictSame(lines(cells([7, 2, 10, 20, 29])), [
      'lost usage of node 1 7 checksum: expected 30, found 29',
    ]);
    t.strictSame(lines(cells([7, 2, 10, 20, 30], [9, 1, 0, 0, 0])), [
      'doubled usage of node 1 9 rows: expected 0, found 1',
    ]);
    t.strictSame(lines(cells()).length, 4, 'all of it lost');
  },
);

t.test('only the fields of a kind are compared', async (t) => {
  const acked = cells(['direct', 0, 10, 20, 0]);
  const found = cells(['direct', 5, 10, 20, 7]);
  const { differences } = explain('outbound', { acked, unknown: [] }, found, [
    'bytesUp',
    'bytesDown',
  ]);
  t.strictSame(differences, []);
});

t.test('an unknown request may be there once or not at all', async (t) => {
  const acked = cells([7, 1, 10, 10, 10]);
  const one = cells([7, 1, 5, 5, 5], [8, 1, 6, 6, 6]);
  const two = cells([7, 1, 3, 3, 3]);
  const unknown = [one, two];
  const against = (found: Cells) => explain('usage', { acked, unknown }, found, fields);

  t.strictSame(against(acked), { differences: [], stored: [] }, 'neither');
  const withOne = cells([7, 2, 15, 15, 15], [8, 1, 6, 6, 6]);
  t.strictSame(against(withOne), { differences: [], stored: [one] });
  t.strictSame(against(cells([7, 2, 13, 13, 13])), { differences: [], stored: [two] });
  const withBoth = cells([7, 3, 18, 18, 18], [8, 1, 6, 6, 6]);
  t.strictSame(against(withBoth), { differences: [], stored: [one, two] });

  const half = against(cells([7, 2, 15, 15, 15])).differences;
  t.equal(half.length, 1, 'half of a request');
  t.equal(half[0]?.kind, 'other');
  const twice = against(cells([7, 3, 20, 20, 20], [8, 2, 12, 12, 12])).differences;
  t.ok(twice.some((difference) => difference.kind === 'doubled' && difference.found === '12'));
  const lost = against(cells([8, 1, 6, 6, 6])).differences;
  t.ok(lost.every((difference) => difference.kind === 'lost'));
  t.equal(lost[0]?.expected, '1 to 3');
});

t.test('with too many unknown requests to try every subset, the bounds are checked', async (t) => {
  const acked = cells([7, 1, 10, 10, 10]);
  const unknown = Array.from({ length: 40 }, () => cells([7, 1, 1, 1, 1]));
  const against = (found: Cells) =>
    explain('usage', { acked, unknown }, found, fields).differences.length;
  t.equal(against(cells([7, 31, 40, 40, 40])), 0);
  t.equal(against(cells([7, 42, 50, 50, 50])), 1);
  t.equal(against(cells([7, 0, 10, 10, 10])), 1);
});

t.test('counters are compared both ways', async (t) => {
  const expected = new Map([
    [1, { bytesUp: 1n, bytesDown: 2n }],
    [2, { bytesUp: 0n, bytesDown: 0n }],
    [3, { bytesUp: 5n, bytesDown: 5n }],
  ]);
  t.strictSame(compareCounters('counter', expected, new Map(expected)), []);
  const found = new Map([
    [1, { bytesUp: 1n, bytesDown: 1n }],
    [3, { bytesUp: 6n, bytesDown: 5n }],
    [4, { bytesUp: 0n, bytesDown: 9n }],
  ]);
  t.strictSame(compareCounters('counter', expected, found).map(differenceLine), [
    'lost counter 1 bytesDown: expected 2, found 1',
    'doubled counter 3 bytesUp: expected 5, found 6',
    'doubled counter 4 bytesDown: expected 0, found 9',
  ]);
});
