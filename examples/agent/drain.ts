import type { Logger } from '../../src/log.ts';
import { type CoreClient, pause } from './client.ts';
import type { Ledger } from './ledger.ts';

/** After these answers Core will never take the same body; see docs/durability.md. */
const finalStatuses = new Set([400, 413, 415, 422]);

/**
 * Sends the stored posts to Core in order, one at a time, until `signal` ends it. A post is dropped
 * after a 200. A post that Core will never take goes to `refused/`. After any other refusal (a revoked
 * key, a proxy's 404) the post is kept and sent again.
 */
export async function drain(deps: {
  client: CoreClient;
  ledger: Ledger;
  log: Logger;
  retryMs: number;
  signal: AbortSignal;
}): Promise<void> {
  const { client, ledger, log, signal } = deps;
  for (;;) {
    const post = await ledger.next(signal);
    if (post === undefined) return;
    const answer = await client.deliver(post.path, post.body, post.idempotencyKey);
    if (answer.kind === 'ok') {
      ledger.drop(post);
    } else if (answer.kind === 'refused' && finalStatuses.has(answer.status)) {
      log.error({ post: post.name, answer }, 'Core will never take a post: it is in refused/');
      ledger.setAside(post, answer);
    } else if (!signal.aborted) {
      log.error({ post: post.name, answer }, 'Core refused a post: it is kept and sent again');
      await pause(deps.retryMs, signal);
    }
  }
}
