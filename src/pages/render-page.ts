import { createHash } from 'node:crypto';
import { base64List, linkList } from '../client-apps/link-list.ts';
import { mihomoProfile } from '../client-apps/mihomo.ts';
import type { Profile } from '../client-apps/profile.ts';
import { singBoxProfile } from '../client-apps/sing-box.ts';
import type { SubscriptionStatus } from '../subscriptions/status.ts';
import { noticeOf } from './connections.ts';
import type { PageFormat } from './format.ts';
import { htmlPage } from './html.ts';
import type { PageContent, PageSubscription } from './read-page.ts';

/** A page as it is served. */
export interface Page {
  format: PageFormat;
  body: string;
  /** In quotes. Another body or other traffic has another tag, since most apps read no headers of a 304. */
  etag: string;
  /** The value of `subscription-userinfo`. */
  userInfo: string;
  /** Links that the subscription has and this format has no words for. */
  leftOut: number;
}

const noticeTexts: Record<SubscriptionStatus, string> = {
  active: 'No servers yet',
  limited: 'Traffic limit reached',
  expired: 'Subscription expired',
  disabled: 'Subscription disabled',
};

export function renderPage(content: PageContent, format: PageFormat, title: string): Page {
  const { text, leftOut } = profileOf(content, format, title);
  const userInfo = userInfoOf(content.subscription);
  const digest = createHash('sha256').update(userInfo).update('\n').update(text);
  const etag = `"${digest.digest('base64url').slice(0, 22)}"`;
  return { format, body: text, etag, userInfo, leftOut: content.leftOut.length + leftOut.length };
}

function profileOf(content: PageContent, format: PageFormat, title: string): Profile {
  const { subscription } = content;
  const notice = noticeTexts[subscription.status];
  if (format === 'html') return { text: htmlPage(content, { title, notice }), leftOut: [] };
  const given = content.connections;
  const connections = given.length === 0 ? [noticeOf(notice)] : given;
  switch (format) {
    case 'base64':
      return base64List(connections);
    case 'plain':
      return linkList(connections);
    case 'mihomo':
      return mihomoProfile(connections);
    case 'sing-box':
      return singBoxProfile(connections);
  }
}

/** In bytes and Unix seconds. 0 stands for no limit and for no end, as other panels write it. */
function userInfoOf({ bytesUp, bytesDown, limitBytes, expiresAt }: PageSubscription): string {
  const expire = expiresAt === null ? 0 : Math.floor(expiresAt.getTime() / 1_000);
  return `upload=${bytesUp}; download=${bytesDown}; total=${limitBytes ?? 0}; expire=${expire}`;
}
