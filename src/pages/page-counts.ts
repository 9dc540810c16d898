import type { Redis } from 'ioredis';
import type { Logger } from '../log.ts';
import { type PageFormat, pageFormats } from './format.ts';

/** How a request for a page ended. */
const pageOutcomes = ['served', 'unchanged', 'unknown', 'limited', 'failed'] as const;
export type PageOutcome = (typeof pageOutcomes)[number];

/** Counts requests for pages, of all processes together. */
export interface PageCounts {
  count(format: PageFormat, outcome: PageOutcome): void;
  /** Writes what is not written yet. */
  close(): Promise<void>;
}

/**
 * Adds the counts to Redis every few seconds, because any api process may answer a scrape. A process that is
 * killed takes the last few seconds along: the counts are for graphs, and nothing is decided by them.
 */
export function createPageCounts(options: {
  redis: Redis;
  prefix: string;
  log: Logger;
  intervalMs: number;
}): PageCounts {
  const { redis, prefix, log } = options;
  const waiting = new Map<string, number>();
  const write = async (): Promise<void> => {
    if (waiting.size === 0) return;
    const added = [...waiting];
    waiting.clear();
    try {
      const transaction = redis.multi();
      for (const [field, count] of added) transaction.hincrby(keyOf(prefix), field, count);
      await transaction.exec();
    } catch (err) {
      // Not added again: whether Redis has added them is not known.
      log.debug({ err }, 'counts of subscription pages were not written');
    }
  };
  const timer = setInterval(() => void write(), options.intervalMs);
  timer.unref();
  return {
    count(format, outcome) {
      const field = `${format}:${outcome}`;
      waiting.set(field, (waiting.get(field) ?? 0) + 1);
    },
    async close() {
      clearInterval(timer);
      await write();
    },
  };
}

/** All counts ever; those that never happened are 0. */
export async function readPageCounts(
  redis: Redis,
  prefix: string,
): Promise<{ format: PageFormat; outcome: PageOutcome; count: number }[]> {
  const found = await redis.hgetall(keyOf(prefix));
  return pageFormats.flatMap((format) =>
    pageOutcomes.map((outcome) => ({
      format,
      outcome,
      count: Number(found[`${format}:${outcome}`] ?? 0),
    })),
  );
}

function keyOf(prefix: string): string {
  return `${prefix}:page-requests`;
}
