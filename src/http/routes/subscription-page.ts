import type { PageFormat } from '../../pages/format.ts';
import { htmlPolicy } from '../../pages/html.ts';
import type { SubscriptionPages } from '../../pages/pages.ts';
import type { Page } from '../../pages/render-page.ts';
import { matchesEtag } from '../etag.ts';
import { type Reply, type Route, targetOf } from '../route.ts';

const contentTypes: Record<PageFormat, string> = {
  base64: 'text/plain; charset=utf-8',
  plain: 'text/plain; charset=utf-8',
  mihomo: 'text/yaml; charset=utf-8',
  'sing-box': 'application/json; charset=utf-8',
  html: 'text/html; charset=utf-8',
};

/** GET /sub/TOKEN: the links of a subscription, for its client apps. Whoever has the token has the links. */
export function subscriptionPageRoute(deps: {
  pages: SubscriptionPages;
  title: string;
  updateHours: number;
}): Route {
  const headers = {
    // Neither a proxy nor a browser may keep it.
    'Cache-Control': 'private, no-store',
    Vary: 'User-Agent, Accept',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'X-Robots-Tag': 'noindex',
    'Profile-Update-Interval': String(deps.updateHours),
    'Profile-Title': `base64:${Buffer.from(deps.title).toString('base64')}`,
  };
  // Apps name the profile by the file name. Only the first form is read by all, and it has to be ASCII.
  const disposition =
    `attachment; filename="${deps.title.replace(/[^\w .-]/g, '_')}"; ` +
    `filename*=UTF-8''${encodeURIComponent(deps.title).replace(/['()*]/g, percentEncoded)}`;
  return {
    method: 'GET',
    path: '/sub/:token',
    authenticated: false,
    readsTarget: true,
    async handle(request): Promise<Reply> {
      const { parameter, format, userAgent, accept } = targetOf(request);
      const { ifNoneMatch } = request.headers;
      const { outcome, page } = await deps.pages.find({
        token: parameter,
        format,
        userAgent,
        accept,
        address: request.address,
        hasTag: (etag) => matchesEtag(ifNoneMatch, etag),
      });
      const all = { ...headers, ...headersOf(page) };
      if (outcome === 'unchanged') return { status: 304, headers: all };
      const typed = { ...all, 'Content-Type': contentTypes[page.format] };
      return {
        status: 200,
        headers:
          page.format === 'html'
            ? { ...typed, 'Content-Security-Policy': htmlPolicy }
            : { ...typed, 'Content-Disposition': disposition },
        body: page.body,
      };
    },
  };
}

function headersOf({ etag, userInfo, leftOut }: Page): Record<string, string> {
  const always = { ETag: etag, 'Subscription-Userinfo': userInfo };
  return leftOut === 0 ? always : { ...always, 'X-Links-Left-Out': String(leftOut) };
}

function percentEncoded(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
}
