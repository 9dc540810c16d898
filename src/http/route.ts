import type { KnownNode } from '../nodes/directory.ts';

/** What a handler gets. The body is complete, decompressed and within its bound. */
export interface RouteRequest {
  readonly requestId: string;
  /** Undefined on routes that need no key. */
  node: KnownNode | undefined;
  body: Uint8Array;
  headers: RequestHeaders;
  /** The sender's address (client-address.ts); empty if a key says who sends. */
  address: string;
  /** Set if the route says `readsTarget`. */
  target: RequestTarget | undefined;
}

/** What a route without a key may look at beside the body. All are as sent, and empty if not sent. */
export interface RequestTarget {
  /** The part of the path that the route calls `:name`. */
  parameter: string;
  /** `?format=` of the query. */
  format: string;
  userAgent: string;
  accept: string;
}

/** The request headers that any route looks at; empty if not sent. */
export interface RequestHeaders {
  authKey: string;
  contentType: string;
  contentLength: string;
  contentEncoding: string;
  idempotencyKey: string;
  ifNoneMatch: string;
  acceptEncoding: string;
  /** `x-node-stream` and `x-node-sequence` */
  postStream: string;
  postSequence: string;
}

export interface Reply {
  status: number;
  headers?: Readonly<Record<string, string>>;
  /** Absent on 304. */
  body?: string | Buffer;
}

export interface Route {
  method: 'GET' | 'POST';
  path: string;
  /** Whether `x-node-auth-key` is required. */
  authenticated: boolean;
  /**
   * Largest body in bytes, both as sent and decompressed. It is what the route's contract needs, so
   * that a bad request costs little. 1 KiB if not given; CORE_BODY_BYTES_MAX if that is less.
   */
  bodyBytesMax?: number;
  /**
   * The handler looks at the body only until it returns or first awaits, so it needs no copy: the
   * memory is used again after that. Other handlers get a copy.
   */
  readsAtOnce?: boolean;
  /** The handler looks at `target`, on a route without a key. */
  readsTarget?: boolean;
  handle: (request: RouteRequest) => Promise<Reply> | Reply;
}

export function json(status: number, value: unknown): Reply {
  return { status, headers: jsonHeaders, body: JSON.stringify(value) };
}

/** For an answer that is the same every time: it is encoded once. */
export function constantJson(status: number, value: unknown): Reply {
  return { status, headers: jsonHeaders, body: Buffer.from(JSON.stringify(value)) };
}

/** The headers of nearly every answer. reply.ts recognises this very object. */
export const jsonHeaders = { 'Content-Type': 'application/json' } as const;

/** The answer of every route that returns nothing. */
export const okReply: Reply = constantJson(200, { ok: true });

/** The calling node. The server has set it on authenticated routes. */
export function callerOf(request: RouteRequest): KnownNode {
  if (request.node === undefined) throw new Error('the route is not marked as authenticated');
  return request.node;
}

/** The target of the request. The server has set it on routes that say `readsTarget`. */
export function targetOf(request: RouteRequest): RequestTarget {
  if (request.target === undefined)
    throw new Error('the route does not say that it reads the target');
  return request.target;
}
