import { createHash } from 'node:crypto';
import { shareLink } from '../client-apps/share-link.ts';
import type { PageContent, PageSubscription } from './read-page.ts';

const style =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}' +
  'code{overflow-wrap:anywhere;font-size:.85em}li{margin:0 0 1rem}';
const styleHash = createHash('sha256').update(style).digest('base64');

/** The page runs no script, loads nothing, and nobody can show it in a frame. */
export const htmlPolicy =
  `default-src 'none'; style-src 'sha256-${styleHash}'; base-uri 'none'; form-action 'none'; ` +
  `frame-ancestors 'none'`;

/** What somebody sees who opens the address of a page in a browser. */
export function htmlPage(
  { subscription, connections }: PageContent,
  { title, notice }: { title: string; notice: string },
): string {
  const links = connections.map((connection) => {
    const uri = escaped(shareLink(connection));
    return `<li><a href="${uri}">${escaped(connection.name)}</a><br><code>${uri}</code></li>\n`;
  });
  const shown =
    links.length === 0 ? `<p>${escaped(notice)}.</p>\n` : `<ul>\n${links.join('')}</ul>\n`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escaped(title)}</h1>
<p>${escaped(usageText(subscription))}</p>
<p>Give the address of this page to a client app as a subscription. The app then keeps its links up to date.
Whoever has the address has the links, so keep it to yourself.</p>
${shown}</body>
</html>
`;
}

function usageText({ bytesUp, bytesDown, limitBytes, expiresAt }: PageSubscription): string {
  const used = bytesText(bytesUp + bytesDown);
  const traffic = limitBytes === null ? `${used} used` : `${used} of ${bytesText(limitBytes)} used`;
  return expiresAt === null
    ? `${traffic}.`
    : `${traffic}. Ends ${expiresAt.toISOString().slice(0, 10)} (UTC).`;
}

function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1_000 ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${units[power]}`;
}

function escaped(text: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
  };
  return text.replace(/[&<>"]/g, (character) => entities[character] ?? character);
}
