import type { Page } from './render-page.ts';

/** The pages that this process rendered last, by token and format. */
interface PageCache {
  get(key: string): Page | undefined;
  put(key: string, page: Page): void;
}

/** A removed or rotated token works for this long at most in a process that served it just before. */
const keptMs = 5_000;
const bytesMax = 16_777_216;

/** Drops the oldest pages beyond the bound. It saves the stores from an app that asks in a loop. */
export function createPageCache(nowMs: () => number = () => performance.now()): PageCache {
  const held = new Map<string, { page: Page; sinceMs: number; bytes: number }>();
  let bytesHeld = 0;
  const drop = (key: string): void => {
    bytesHeld -= held.get(key)?.bytes ?? 0;
    held.delete(key);
  };
  return {
    get(key) {
      const one = held.get(key);
      if (one === undefined) return undefined;
      if (nowMs() - one.sinceMs < keptMs) return one.page;
      drop(key);
      return undefined;
    },
    put(key, page) {
      drop(key);
      // A string takes up to two bytes a character.
      const bytes = 2 * (page.body.length + key.length) + 256;
      if (bytes > bytesMax) return;
      held.set(key, { page, sinceMs: nowMs(), bytes });
      bytesHeld += bytes;
      for (const [oldest, { sinceMs }] of held) {
        if (bytesHeld <= bytesMax && nowMs() - sinceMs < keptMs) break;
        drop(oldest);
      }
    },
  };
}
