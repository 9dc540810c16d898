import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import type { z } from 'zod';
import type {
  IngestSchemas,
  nodeConfigAppliedSchema,
  nodeErrorSchema,
  nodeHeartbeatSchema,
  registerNodeSchema,
} from '../../src/contract/node.ts';
import type { NodeConfig } from '../../src/contract/node-config.ts';

type RegisterBody = z.input<typeof registerNodeSchema>;
/** `versions` and `load` are optional, and a Core that does not know them ignores them. */
type HeartbeatBody = z.input<typeof nodeHeartbeatSchema> & {
  versions?: { agent?: string; xray?: string };
  load?: { cpuPercent?: number; memoryBytes?: number; uptimeSeconds?: number };
};
type AppliedBody = z.input<typeof nodeConfigAppliedSchema>;
type ErrorBody = z.input<typeof nodeErrorSchema>;
export type UsageBody = z.input<IngestSchemas['usage']>;
export type OutboundBody = z.input<IngestSchemas['outbound']>;
export type SessionsBody = z.input<IngestSchemas['session']>;

/** A post with entries: one of the three routes, with the body that it takes. */
export type IngestPost =
  | { path: '/node/usage'; body: UsageBody }
  | { path: '/node/outbound-usage'; body: OutboundBody }
  | { path: '/node/session-events'; body: SessionsBody };

/** How Core recognises a post that comes again. */
export type PostIdentity =
  /** The stream is a UUID, and numbers count up from 1. */
  | { stream: string; number: number }
  /** An `Idempotency-Key`, which the posts of an earlier agent have. */
  | { key: string };

/** How a call to Core ended. */
export type Answer<T> =
  | { kind: 'ok'; value: T }
  /** The configuration is still the one of the ETag that was sent. */
  | { kind: 'notModified' }
  /** A 4xx other than 429: Core will refuse the same request again. `code` is one of docs/errors.md. */
  | { kind: 'refused'; status: number; code: string; message: string }
  /** No answer, 429 or 5xx. Core may have stored the request; send the same bytes again. */
  | { kind: 'away'; reason: string; retryAfterMs: number };

export interface ClientOptions {
  /** Where Core listens, e.g. `https://core.example.net`. */
  url: string;
  /** For one request with its answer. */
  timeoutMs: number;
  /** Longest wait between two attempts, even if Retry-After asks for more. */
  backOffMsMax: number;
  /** Ends every wait and every request under way. */
  signal: AbortSignal;
  /** Gets the `Date` of each answer with a 200 or a 304; null if it has none. */
  onDate?: (date: string | null) => void;
}

/** A smaller body is not worth compressing. */
const gzipBytesMin = 4_096;
const backOffBaseMs = 250;
const errorCharsMax = 500;

export type CoreClient = ReturnType<typeof createClient>;

/**
 * The eight node routes. No function throws because of Core or the network; see `Answer`.
 * All but `register` need `authKey`.
 */
export function createClient(options: ClientOptions, authKey?: string) {
  const once = <T>(request: Request): Promise<Answer<T>> => attempt<T>(options, authKey, request);
  const post = <T>(path: string, body: unknown): Promise<Answer<T>> =>
    once<T>({ method: 'POST', path, body: JSON.stringify(body) });
  return {
    /** Call it once: the code is used up even if the answer is lost. */
    register: (body: RegisterBody) =>
      post<{ authKey: string; nodeId: number }>('/node/register', body),
    heartbeat: (body: HeartbeatBody) => post<{ needSync: boolean }>('/node/heartbeat', body),
    applied: (body: AppliedBody) => post<unknown>('/node/config/applied', body),
    error: (body: ErrorBody) => post<unknown>('/node/error', body),
    /** @param revision one that the caller has already; Core does not send it again. */
    config: (revision: number | undefined) =>
      once<NodeConfig>({
        method: 'GET',
        path: '/node/config/latest',
        headers: revision === undefined ? {} : { 'if-none-match': `"${revision}"` },
      }),
    /**
     * Posts entries, as JSON text. Repeats the same bytes with the same number until Core has taken or
     * refused them. The answer is 'away' only if the signal ended the repeats.
     */
    deliver: (path: IngestPost['path'], body: string, identity: PostIdentity) =>
      repeat(options, () =>
        once<unknown>({
          method: 'POST',
          path,
          body,
          headers: identityHeaders(identity),
        }),
      ),
  };
}

function identityHeaders(identity: PostIdentity): Record<string, string> {
  if ('key' in identity) return { 'idempotency-key': identity.key };
  return { 'x-node-stream': identity.stream, 'x-node-sequence': String(identity.number) };
}

interface Request {
  method: 'GET' | 'POST';
  path: string;
  body?: string;
  headers?: Record<string, string>;
}

/** Repeats until there is an answer. The wait doubles, with full jitter, plus what Retry-After asks for. */
async function repeat<T>(
  options: ClientOptions,
  send: () => Promise<Answer<T>>,
): Promise<Answer<T>> {
  for (let tries = 0; ; tries += 1) {
    const answer = await send();
    if (answer.kind !== 'away' || options.signal.aborted) return answer;
    const ceilingMs = Math.min(options.backOffMsMax, backOffBaseMs * 2 ** Math.min(tries, 16));
    const waitMs = Math.min(answer.retryAfterMs, options.backOffMsMax) + Math.random() * ceilingMs;
    await pause(waitMs, options.signal);
  }
}

async function attempt<T>(
  options: ClientOptions,
  authKey: string | undefined,
  request: Request,
): Promise<Answer<T>> {
  const isCompressed = request.body !== undefined && request.body.length >= gzipBytesMin;
  const cut = new AbortController();
  const abort = (): void =>
    cut.abort(new Error('given up: the agent stops, or there was no answer in time'));
  const timer = setTimeout(abort, options.timeoutMs);
  options.signal.addEventListener('abort', abort);
  if (options.signal.aborted) abort();
  try {
    const response = await fetch(new URL(request.path, options.url), {
      method: request.method,
      headers: {
        ...request.headers,
        ...(authKey === undefined ? {} : { 'x-node-auth-key': authKey }),
        ...(request.body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(isCompressed ? { 'content-encoding': 'gzip' } : {}),
      },
      signal: cut.signal,
      ...(request.body === undefined
        ? {}
        : { body: isCompressed ? gzipSync(request.body) : request.body }),
    });
    const text = await response.text();
    if (response.status === 200 || response.status === 304) {
      options.onDate?.(response.headers.get('date'));
    }
    if (response.status === 304) return { kind: 'notModified' };
    if (response.status === 200) return { kind: 'ok', value: JSON.parse(text) as T };
    const { code, message } = readError(text);
    if (response.status === 429 || response.status >= 500 || response.status < 400) {
      const reason = `${response.status} ${code} ${message}`;
      return { kind: 'away', reason, retryAfterMs: readRetryAfterMs(response.headers) };
    }
    return { kind: 'refused', status: response.status, code, message };
  } catch (thrown) {
    return { kind: 'away', reason: describe(thrown), retryAfterMs: 0 };
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener('abort', abort);
  }
}

function readRetryAfterMs(headers: Headers): number {
  const seconds = Number(headers.get('retry-after') ?? 0);
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1_000 : 0;
}

/** Core's errors are JSON. A proxy in front of Core may answer anything. */
function readError(text: string): { code: string; message: string } {
  try {
    const { error } = JSON.parse(text) as { error?: { code?: unknown; message?: unknown } };
    const issues = JSON.stringify((error as { issues?: unknown } | undefined)?.issues ?? '');
    const message = `${error?.message ?? ''} ${issues === '""' ? '' : issues}`.trim();
    return { code: String(error?.code ?? ''), message: message.slice(0, errorCharsMax) };
  } catch {
    return { code: '', message: text.slice(0, errorCharsMax) };
  }
}

/** Adds the cause, because fetch itself only says 'fetch failed'. */
export function describe(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const { cause } = thrown;
  return cause instanceof Error ? `${thrown.message}: ${cause.message}` : thrown.message;
}

/** Waits. Returns early, without an error, if `signal` is aborted. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  // Only the signal makes this timer fail.
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
