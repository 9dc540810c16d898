import type { EntryFormat, SentEntry } from '../bodies.ts';

const sample: SentEntry = {
  userId: 1_000_001,
  subscriptionId: 1_000_001,
  nodeProtocolId: 1_000_001,
  bytesUp: 10_000_000,
  bytesDown: 1_000_000_000,
  recordedAtMs: Date.UTC(2026, 0, 1),
};

/**
 * InfluxDB's line protocol, a line an entry, microseconds: `/write?precision=u`. The three ids are
 * tags, the two counts fields, so a series is a subscription on a node's protocol.
 *
 * A point is known by its series and time alone, so the sender changes the time more than anything:
 * one to 600 seconds, milliseconds, and some microseconds that VictoriaMetrics drops.
 */
export const lineFormat: EntryFormat = createLineFormat();

function createLineFormat(): EntryFormat {
  const format = (entry: SentEntry): string =>
    `usage,sub=${entry.subscriptionId},user=${entry.userId},proto=${entry.nodeProtocolId} ` +
    `up=${entry.bytesUp}i,down=${entry.bytesDown}i ${entry.recordedAtMs}000`;
  const text = format(sample);
  const downAt = text.indexOf('down=') + 'down='.length;
  // Ten digits of seconds and six behind them.
  const timeAt = text.length - 16;
  return {
    prefix: '',
    separator: '\n',
    suffix: '\n',
    format,
    fours: [downAt + 1, timeAt + 9],
    sixties: [timeAt + 7, timeAt + 13],
  };
}

/** ClickHouse's JSONEachRow for the table of clickhouse.ts, a line an entry. */
export const jsonEachRowFormat: EntryFormat = createJsonEachRowFormat();

function createJsonEachRowFormat(): EntryFormat {
  const format = (entry: SentEntry): string => {
    const iso = new Date(entry.recordedAtMs).toISOString();
    return (
      `{"user_id":${entry.userId},"subscription_id":${entry.subscriptionId},` +
      `"node_protocol_id":${entry.nodeProtocolId},"bytes_up":${entry.bytesUp},` +
      `"bytes_down":${entry.bytesDown},"recorded_at":"${iso.slice(0, 10)} ${iso.slice(11, 19)}"}`
    );
  };
  const text = format(sample);
  const valueAt = (name: string): number => text.indexOf(`"${name}":`) + name.length + 3;
  // "2026-01-01 00:00:00": minutes and seconds, 15 and 18 behind the quote.
  const minuteAt = valueAt('recorded_at') + 15;
  return {
    prefix: '',
    separator: '\n',
    suffix: '\n',
    format,
    fours: [valueAt('bytes_up') + 1, valueAt('bytes_down') + 1],
    sixties: [minuteAt, minuteAt + 3],
  };
}
