import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { BufferPool } from '../buffer-pool.ts';
import type { Failpoint } from '../failpoints.ts';
import { createEntryReader, type Entries, type EntryReader } from '../spool/entries.ts';
import type { Kind } from '../spool/streams.ts';
import { oldestSealed, type Sealed, type Segment, sealNext } from './seal.ts';

/**
 * A stream's segments in their order: first those that an earlier run left sealed, inserted or not,
 * then new ones.
 */
export interface Source {
  /** Undefined where the stream has no more by now. */
  next(): Promise<Sealed | undefined>;
  /**
   * Begins to read the entries behind the segment that `next` returned last, for the next call. They
   * are not sealed yet: where the run ends first, nothing has happened.
   */
  readAhead(): void;
}

export function createSource(
  deps: {
    client: pg.PoolClient;
    redis: Redis;
    buffers: BufferPool;
    failpoint?: Failpoint | undefined;
  },
  range: { stream: string; rowsMax: number },
): Source {
  const { client, redis, buffers, failpoint } = deps;
  const { stream, rowsMax } = range;
  let afterSeq = 0;
  let leftOver = true;
  let last: Segment | undefined;
  let ahead: { afterId: string; reader: EntryReader; filled: Promise<void> } | undefined;

  const readerAfter = (id: string, kind: Kind): EntryReader =>
    createEntryReader(redis, { stream, kind, start: `(${id}`, end: '+', rowsMax }, buffers);

  const read = async (afterId: string, kind: Kind): Promise<Entries | undefined> => {
    const begun = ahead?.afterId === afterId ? ahead : undefined;
    ahead = undefined;
    await begun?.filled;
    const reader = begun?.reader ?? readerAfter(afterId, kind);
    await reader.fill();
    return reader.entries();
  };

  return {
    async next() {
      if (leftOver) {
        const sealed = await oldestSealed(client, stream, afterSeq);
        if (sealed !== undefined) {
          afterSeq = sealed.segment.seq;
          return sealed;
        }
        // Nobody else seals while this run has the lock.
        leftOver = false;
      }
      const sealed = await sealNext(client, stream, read, failpoint);
      last = sealed?.segment;
      return sealed;
    },
    readAhead() {
      if (last === undefined) return;
      const reader = readerAfter(last.lastId, last.kind);
      const filled = reader.fill();
      // Where it fails `next` says so, unless something else has ended the run before.
      filled.catch(() => undefined);
      ahead = { afterId: last.lastId, reader, filled };
    },
  };
}
