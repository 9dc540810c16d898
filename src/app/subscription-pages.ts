import type { Redis } from 'ioredis';
import type { Config } from '../config.ts';
import type { Route } from '../http/route.ts';
import { subscriptionPageRoute } from '../http/routes/subscription-page.ts';
import type { Lifecycle } from '../lifecycle.ts';
import type { Logger } from '../log.ts';
import { createPageCounts } from '../pages/page-counts.ts';
import { createSubscriptionPages } from '../pages/pages.ts';
import { createPageRendering } from '../pages/rendering.ts';

const countsIntervalMs = 5_000;

/** The routes of subscription pages: none unless the settings say that Core serves pages. */
export function subscriptionPageRoutes(
  config: Config,
  log: Logger,
  lifecycle: Lifecycle,
  redis: Redis,
): Route[] {
  const { areServed, title, updateHours, requestsMax, addressRequestsMax } = config.pages;
  if (!areServed) return [];
  const { redisPrefix: prefix, postgresUrl: databaseUrl } = config.stores;
  const counts = createPageCounts({ redis, prefix, log, intervalMs: countsIntervalMs });
  lifecycle.use('page counts', () => counts.close());
  const rendering = createPageRendering({ databaseUrl, title });
  lifecycle.use('page rendering', () => rendering.close());
  const pages = createSubscriptionPages({
    rendering,
    counts,
    pageRequestsMax: requestsMax,
    addressRequestsMax,
  });
  return [subscriptionPageRoute({ pages, title, updateHours })];
}
