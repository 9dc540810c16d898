import { CoreError, toCoreError } from '../errors.ts';
import { formatFor, type PageFormat } from './format.ts';
import { createMinuteCounter } from './minute-counter.ts';
import { createPageCache } from './page-cache.ts';
import type { PageCounts, PageOutcome } from './page-counts.ts';
import type { Page } from './render-page.ts';
import type { PageRendering } from './rendering.ts';
import { tokenHash } from './token.ts';

/** Who asks for which page. The strings are as sent, and empty if not sent. */
interface PageRequest {
  token: string;
  format: string;
  userAgent: string;
  accept: string;
  /** The sender's address (client-address.ts). */
  address: string;
  /** Whether the sender has the page with this tag already. */
  hasTag: (etag: string) => boolean;
}

/** `unchanged` has no body for the sender, who has it. */
interface FoundPage {
  outcome: 'served' | 'unchanged';
  page: Page;
}

export interface SubscriptionPages {
  /**
   * @throws CoreError INVALID_QUERY; NOT_FOUND if no subscription has the token, whether it never had or
   * has another one now; RATE_LIMITED with Retry-After; those of PageRendering.
   */
  find(request: PageRequest): Promise<FoundPage>;
}

export function createSubscriptionPages(options: {
  rendering: PageRendering;
  counts: PageCounts;
  /** Requests for one page, and requests from one address, that this process answers in a minute. */
  pageRequestsMax: number;
  addressRequestsMax: number;
}): SubscriptionPages {
  const { rendering, counts } = options;
  const byAddress = createMinuteCounter(options.addressRequestsMax);
  const byPage = createMinuteCounter(options.pageRequestsMax);
  const cache = createPageCache();
  const pending = new Map<string, Promise<Page | undefined>>();

  /** Requests for the same page at the same time share one answer. */
  const pageOf = (hash: Buffer, format: PageFormat): Promise<Page | undefined> => {
    const key = `${hash.toString('base64url')} ${format}`;
    const hot = cache.get(key);
    if (hot !== undefined) return Promise.resolve(hot);
    const underWay = pending.get(key);
    if (underWay !== undefined) return underWay;
    const answer = rendering
      .render(hash, format)
      .then((page) => {
        if (page !== undefined) cache.put(key, page);
        return page;
      })
      .finally(() => pending.delete(key));
    pending.set(key, answer);
    return answer;
  };

  const find = async (request: PageRequest, format: PageFormat): Promise<FoundPage> => {
    refuseIfOver(byAddress.count(request.address), 'This address asks for too many pages');
    const hash = tokenHash(request.token);
    const page = await pageOf(hash, format);
    // The same for every token that finds nothing. It takes as long as one that finds something takes to be
    // found, so a sender learns nothing else.
    if (page === undefined) throw new CoreError('NOT_FOUND', 'There is no such page');
    // Only pages that exist are counted: otherwise made-up tokens would drive them out of the memory.
    refuseIfOver(byPage.count(hash.toString('base64url')), 'This page is asked for too often');
    return { outcome: request.hasTag(page.etag) ? 'unchanged' : 'served', page };
  };

  return {
    async find(request) {
      const format = formatFor(request);
      try {
        const found = await find(request, format);
        counts.count(format, found.outcome);
        return found;
      } catch (thrown) {
        counts.count(format, outcomeOf(toCoreError(thrown)));
        throw thrown;
      }
    },
  };
}

function outcomeOf({ code }: CoreError): PageOutcome {
  if (code === 'NOT_FOUND') return 'unknown';
  return code === 'RATE_LIMITED' ? 'limited' : 'failed';
}

function refuseIfOver(seconds: number, message: string): void {
  if (seconds === 0) return;
  throw new CoreError('RATE_LIMITED', `${message}; wait ${seconds} s`, {
    headers: { 'Retry-After': String(seconds) },
  });
}
