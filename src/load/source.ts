import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { BufferPool } from '../buffer-pool.ts';
import type { Failpoint } from '../failpoints.ts';
import { createEntryReader, type Entries, type EntryReader } from './entries.ts';
import { oldestSealed, type Sealed, sealNext } from './seal.ts';

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
  let lastId: string | undefined;
  let ahead: { afterId: string; reader: EntryReader; filled: Promise<void> } | undefined;

  const readerAfter = (id: string): EntryReader =>
    createEntryReader(redis, { stream, start: `(${id}`, end: '+', rowsMax }, buffers);

  const read = async (afterId: string): Promise<Entries | undefined> => {
    const begun = ahead?.afterId === afterId ? ahead : undefined;
    ahead = undefined;
    await begun?.filled;
    const reader = begun?.reader ?? readerAfter(afterId);
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
      lastId = sealed?.segment.lastId;
      return sealed;
    },
    readAhead() {
      if (lastId === undefined) return;
      const reader = readerAfter(lastId);
      const filled = reader.fill();
      // Where it fails `next` says so, unless something else has ended the run before.
      filled.catch(() => undefined);
      ahead = { afterId: lastId, reader, filled };
    },
  };
}
