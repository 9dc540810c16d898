import fc from 'fast-check';
import t from 'tap';
import { sessionEventTypes, vpnProtocols } from '../../src/contract/enums.ts';
import type { SessionEvent } from '../../src/contract/node.ts';
import { packSessions, sessionRow, sessionRowLength } from '../../src/rows/pack.ts';
import { openSessionRows } from '../../src/rows/session-rows.ts';

const sessionEvents: fc.Arbitrary<SessionEvent[]> = fc.array(
  fc
    .record({
      userId: fc.maxSafeNat().map((n) => Math.max(1, n)),
      protocol: fc.constantFrom(...vpnProtocols),
      eventType: fc.constantFrom(...sessionEventTypes),
      occurredAt: fc.integer({ min: 1_577_836_800_000, max: 1_900_000_000_000 }),
      ipAddress: fc.option(fc.string({ unit: 'binary', maxLength: 64 }), { nil: undefined }),
    })
    .map(({ ipAddress, ...event }) => (ipAddress === undefined ? event : { ...event, ipAddress })),
);

function yyyymm(ms: number): number {
  const date = new Date(ms);
  return date.getUTCFullYear() * 100 + date.getUTCMonth() + 1;
}

function countBy(values: readonly number[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

t.test('session rows are split by month, each exactly once and with the segment', async (t) => {
  fc.assert(
    fc.property(sessionEvents, fc.nat(), (events, seed) => {
      const opened = openSessionRows(packSessions(1, events), 78);
      t.same(
        opened.months.map(({ yyyymm: month, rows }) => [month, rows]),
        [...countBy(events.map((event) => yyyymm(event.occurredAt)))].sort(([a], [b]) => a - b),
      );
      for (const month of opened.months) {
        const all = opened.payload(month, new Set());
        t.equal(all.rows, month.rows);
        const rows: Buffer[] = [];
        for (let at = 0; at < all.bytes.length; ) {
          const length = sessionRowLength(all.bytes, at);
          t.equal(all.bytes.readBigUInt64LE(at + sessionRow.segment), 78n);
          rows.push(all.bytes.subarray(at, at + length));
          at += length;
        }
        t.equal(rows.length, month.rows, 'rows of different length are read to the end');
        const left = new Set([seed % rows.length]);
        const kept = rows.filter((_, position) => !left.has(position));
        const rest = opened.payload(month, left);
        t.equal(rest.rows, kept.length);
        t.ok(rest.bytes.equals(Buffer.concat(kept)));
        t.same(
          opened.singleRows(month, left).map(({ bytes }) => bytes),
          kept,
        );
      }
    }),
    { numRuns: 50 },
  );
});
