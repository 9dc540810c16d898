import type { Logger } from '../../src/log.ts';
import { type CoreClient, pause } from './client.ts';
import type { Ledger } from './ledger.ts';

/** Answers after which the same body will never be taken: see docs/durability.md. */
const finalStatuses = new Set([400, 413, 415, 422]);

/**
 * Sends the spool to Core in order, one post at a time, until `signal` ends it. A post leaves the
 * spool after a 200, or goes to `refused/` where Core will never take it; after any other refusal
 * (a revoked key, a proxy's 404) it is kept and tried again.
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
      log.error({ post: post.name, answer }, 'Core refused a post for good: it is in refused/');
      ledger.setAside(post, answer);
    } else if (!signal.aborted) {
      log.error({ post: post.name, answer }, 'Core refused a post: it is kept and tried again');
      await pause(deps.retryMs, signal);
    }
  }
}
