import { type EntryFormat, jsonEntries, type SentEntry, sampleEntry } from '../bodies.ts';

/**
 * InfluxDB's line protocol, a line an entry, with microseconds: `/write?precision=u`. The three ids are
 * tags and the two counts are fields, so each subscription on a node's protocol is a series.
 *
 * Series and time identify a point. So the sender changes mostly the time: up to ten minutes, the
 * milliseconds, and some microseconds, which VictoriaMetrics drops.
 */
export const lineFormat: EntryFormat = createLineFormat();

function createLineFormat(): EntryFormat {
  const format = (entry: SentEntry): string =>
    `usage,sub=${entry.subscriptionId},user=${entry.userId},proto=${entry.nodeProtocolId} ` +
    `up=${entry.bytesUp}i,down=${entry.bytesDown}i ${entry.recordedAtMs}000`;
  const text = format(sampleEntry);
  const downAt = text.indexOf('down=') + 'down='.length;
  // The time has ten digits of seconds and six of microseconds.
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

/** ClickHouse's JSONEachRow for the table of clickhouse.ts in this folder, a line an entry. */
export const jsonEachRowFormat: EntryFormat = {
  prefix: '',
  separator: '\n',
  suffix: '\n',
  ...jsonEntries(
    ({ userId, subscriptionId, nodeProtocolId, bytesUp, bytesDown, recordedAtMs }) => {
      const iso = new Date(recordedAtMs).toISOString();
      return (
        `{"user_id":${userId},"subscription_id":${subscriptionId},` +
        `"node_protocol_id":${nodeProtocolId},"bytes_up":${bytesUp},` +
        `"bytes_down":${bytesDown},"recorded_at":"${iso.slice(0, 10)} ${iso.slice(11, 19)}"}`
      );
    },
    { bytesUp: 'bytes_up', bytesDown: 'bytes_down', recordedAt: 'recorded_at' },
  ),
};
