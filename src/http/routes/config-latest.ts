import { CoreError } from '../../errors.ts';
import type { ConfigCache } from '../../publish/config-cache.ts';
import { matchesEtag } from '../etag.ts';
import { callerOf, type Reply, type Route } from '../route.ts';

/** GET /node/config/latest: the configuration that the node should run. */
export function configLatestRoute(deps: { configs: ConfigCache }): Route {
  return {
    method: 'GET',
    path: '/node/config/latest',
    authenticated: true,
    async handle(request): Promise<Reply> {
      const node = callerOf(request);
      const isRendered = node.contentHash !== null;
      if (isRendered && matchesEtag(request.headers.ifNoneMatch, `"${node.revision}"`)) {
        return { status: 304, headers: { ETag: `"${node.revision}"` } };
      }
      const config = await deps.configs.get(node);
      if (config === undefined) {
        throw new CoreError('NOT_FOUND', 'The node does not exist any more');
      }
      const headers = {
        'Content-Type': 'application/json',
        ETag: `"${config.revision}"`,
        'Cache-Control': 'no-cache',
        Vary: 'Accept-Encoding',
      };
      if (!acceptsGzip(request.headers.acceptEncoding)) {
        return { status: 200, headers, body: await deps.configs.plain(config) };
      }
      return {
        status: 200,
        headers: { ...headers, 'Content-Encoding': 'gzip' },
        body: config.gzip,
      };
    },
  };
}

/**
 * Whether the header has `gzip` with a quality above zero; without `gzip`, `*` counts (RFC 9110,
 * 12.5.3).
 */
function acceptsGzip(header: string): boolean {
  let wildcard = false;
  for (const part of header.toLowerCase().split(',')) {
    const [coding, ...parameters] = part.split(';').map((text) => text.trim());
    const quality = parameters.find((text) => text.startsWith('q='));
    const accepted = quality === undefined || Number(quality.slice(2)) > 0;
    if (coding === 'gzip') return accepted;
    if (coding === '*') wildcard = accepted;
  }
  return wildcard;
}
