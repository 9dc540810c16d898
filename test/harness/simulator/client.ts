import http from 'node:http';
import { gunzipSync } from 'node:zlib';

export interface OutgoingRequest {
  method: 'GET' | 'POST';
  path: string;
  headers: Record<string, string>;
  body: Buffer | undefined;
}

export type Attempt =
  | { kind: 'answered'; status: number; headers: http.IncomingHttpHeaders; body: Buffer }
  /** `sent` is false only if there never was a connection, so that nothing can be stored. */
  | { kind: 'unanswered'; sent: boolean; reason: string };

/** Core's URL, and a node's own few keep-alive connections, as a real node has. */
export interface Target {
  url: URL;
  connections: http.Agent;
}

export function createTarget(url: string): Target {
  return { url: new URL(url), connections: new http.Agent({ keepAlive: true, maxSockets: 6 }) };
}

/** The reason of an attempt that the simulator cut. */
export const cutReason = 'cut on purpose';

const neverConnected = new Set([
  'ECONNREFUSED',
  'EADDRNOTAVAIL',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
]);

/**
 * Sends one HTTP request and returns its answer, if there is one. Never throws. `cutAfterMs` cuts the
 * connection that long after the socket has taken the whole request.
 */
export function attempt(
  target: Target,
  request: OutgoingRequest,
  options: { timeoutMs: number; cutAfterMs?: number | undefined; signal: AbortSignal },
): Promise<Attempt> {
  return new Promise((resolve) => {
    let timer: NodeJS.Timeout | undefined;
    let cutTimer: NodeJS.Timeout | undefined;
    const end = (result: Attempt): void => {
      clearTimeout(timer);
      clearTimeout(cutTimer);
      resolve(result);
    };
    const fail = (error: NodeJS.ErrnoException): void => {
      const sent = !neverConnected.has(error.code ?? '');
      end({ kind: 'unanswered', sent, reason: error.code ?? error.message });
    };
    const outgoing = http.request(
      {
        agent: target.connections,
        host: target.url.hostname,
        port: target.url.port || 80,
        method: request.method,
        path: request.path,
        headers: {
          ...request.headers,
          ...(request.body === undefined ? {} : { 'content-length': request.body.length }),
        },
        signal: options.signal,
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
        incoming.on('error', fail);
        incoming.on('end', () => {
          // An answer that is cut short says nothing about its request.
          if (!incoming.complete) return fail(new Error('answer cut short'));
          end({
            kind: 'answered',
            status: incoming.statusCode ?? 0,
            headers: incoming.headers,
            body: decompress(Buffer.concat(chunks), incoming.headers['content-encoding']),
          });
        });
      },
    );
    outgoing.on('error', fail);
    outgoing.on('finish', () => {
      if (options.cutAfterMs === undefined) return;
      cutTimer = setTimeout(() => outgoing.destroy(new Error(cutReason)), options.cutAfterMs);
    });
    timer = setTimeout(() => outgoing.destroy(new Error('timed out')), options.timeoutMs);
    outgoing.end(request.body);
  });
}

function decompress(body: Buffer, encoding: string | undefined): Buffer {
  if (encoding !== 'gzip') return body;
  try {
    return gunzipSync(body);
  } catch {
    // The caller fails to parse these bytes as JSON, and reports that with the route.
    return body;
  }
}
