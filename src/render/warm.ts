import type { Logger } from '../log.ts';
import { listenForNodes } from '../stores/listen.ts';
import type { ConfigCache } from './config-cache.ts';

/** More nodes than this waiting to be warmed are left to be rendered when they ask. */
const waitingMax = 20_000;

/**
 * Renders a node's config as soon as the node changes, so that the node's own request finds it in
 * the cache. A warming that fails is only logged: the request renders then.
 */
export function warmOnChange(options: {
  databaseUrl: string;
  configs: Pick<ConfigCache, 'warm'>;
  log: Logger;
}): { close(): Promise<void> } {
  const waiting = new Set<number>();
  let running: Promise<void> | undefined;
  let closed = false;

  const run = async (): Promise<void> => {
    for (const nodeId of waiting) {
      if (closed) return;
      waiting.delete(nodeId);
      try {
        await options.configs.warm(nodeId);
      } catch (err) {
        options.log.warn({ err, nodeId }, 'config not warmed');
      }
    }
    running = undefined;
  };
  const listener = listenForNodes(options.databaseUrl, options.log, (nodeId) => {
    if (nodeId === undefined || waiting.size >= waitingMax) return;
    waiting.add(nodeId);
    running ??= run();
  });
  return {
    async close() {
      closed = true;
      await listener.close();
      await running;
    },
  };
}
