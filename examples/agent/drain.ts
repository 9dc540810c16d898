import type { Logger } from '../../src/log.ts';
import { type CoreClient, type IngestPost, pause } from './client.ts';
import type { Ledger } from './ledger.ts';

/** After these answers Core will never take the same body; see docs/durability.md. */
const finalStatuses = new Set([400, 413, 415, 422]);
/** A body without entries, of each route. */
const noEntries: Record<IngestPost['path'], string> = {
  '/node/usage': '{"entries":[]}',
  '/node/outbound-usage': '{"items":[]}',
  '/node/session-events': '{"events":[]}',
};

/**
 * Sends the stored posts to Core in order, one at a time, until `signal` ends it. A post is dropped
 * after a 200. A post that Core will never take goes to `refused/`, and a post without entries takes its
 * number, so that no gap stays. After any other refusal (a revoked key, a proxy's 404) the post is kept and
 * sent again.
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
    const { path, identity } = post;
    const answer = await client.deliver(path, post.body, identity);
    if (answer.kind === 'ok') {
      ledger.drop(post);
    } else if (answer.kind === 'refused' && answer.code === 'POST_NUMBER_REUSED') {
      log.warn({ post: post.name }, 'Core has another body under this number: numbering anew');
      ledger.renumber();
    } else if (answer.kind === 'refused' && finalStatuses.has(answer.status)) {
      log.error({ post: post.name, answer }, 'Core will never take a post: it is in refused/');
      await client.deliver(path, noEntries[path], identity);
      ledger.setAside(post, answer);
    } else if (!signal.aborted) {
      log.error({ post: post.name, answer }, 'Core refused a post: it is kept and sent again');
      await pause(deps.retryMs, signal);
    }
  }
}
