/**
 * Every failure that Core reports to somebody: its code, its HTTP status, whether the same request may
 * succeed later, and what it means. This is the only registry. A test compares docs/errors.md with it.
 */
export const errorTable = {
  MALFORMED_JSON: { status: 400, retryable: false, means: 'The body is not valid JSON.' },
  MALFORMED_BODY: {
    status: 400,
    retryable: false,
    means: 'The body cannot be read as declared, for instance broken gzip.',
  },
  VALIDATION_FAILED: {
    status: 400,
    retryable: false,
    means: 'The body is not what this route takes. `issues` names up to 20 places.',
  },
  INVALID_HEADER: { status: 400, retryable: false, means: 'A header has a value out of bounds.' },
  INVALID_QUERY: {
    status: 400,
    retryable: false,
    means: 'A value in the query of the URL is none that the route takes.',
  },
  UNAUTHORIZED: {
    status: 401,
    retryable: false,
    means: 'The key in x-node-auth-key is missing, unknown, revoked or replaced.',
  },
  REGISTRATION_REFUSED: {
    status: 403,
    retryable: false,
    means: 'The registration code is unknown, used or expired, which look the same.',
  },
  NOT_FOUND: { status: 404, retryable: false, means: 'There is no such route or object.' },
  METHOD_NOT_ALLOWED: {
    status: 405,
    retryable: false,
    means: 'The route exists with another method; `Allow` names it.',
  },
  REVISION_NEVER_ISSUED: {
    status: 409,
    retryable: false,
    means: 'The applied revision is not one that Core ever issued to this node.',
  },
  POST_NUMBER_GAPS: {
    status: 409,
    retryable: false,
    means: 'Too many lower numbers of this stream have not come. Nothing was stored.',
  },
  POST_STREAMS_FULL: {
    status: 409,
    retryable: false,
    means: 'The node has too many numbered streams. `core node posts` forgets one.',
  },
  BODY_TOO_LARGE: {
    status: 413,
    retryable: false,
    means: 'The body is over the limit, before or after decompression.',
  },
  UNSUPPORTED_MEDIA_TYPE: {
    status: 415,
    retryable: false,
    means: 'The body is not application/json, or its Content-Encoding is not gzip.',
  },
  IDEMPOTENCY_KEY_REUSED: {
    status: 422,
    retryable: false,
    means: 'This Idempotency-Key was used with another body. Nothing was stored.',
  },
  POST_NUMBER_REUSED: {
    status: 422,
    retryable: false,
    means: 'This x-node-sequence was used with another body. Nothing was stored.',
  },
  RATE_LIMITED: {
    status: 429,
    retryable: true,
    means: 'This node, address or page has had too many requests. Wait for `Retry-After`.',
  },
  INTERNAL: {
    status: 500,
    retryable: true,
    means: 'A fault in Core. Nothing was acknowledged; the log has the request id.',
  },
  STORE_UNAVAILABLE: {
    status: 503,
    retryable: true,
    means: 'A store is away or refuses. Nothing was acknowledged; repeat the request.',
  },
  BACKLOG_FULL: {
    status: 503,
    retryable: true,
    means: 'The backlog or a queue is full. Nothing was stored; repeat the request.',
  },
  LATE_BACKLOG_FULL: {
    status: 503,
    retryable: true,
    means: 'The backlog of late posts is full. Nothing was stored; repeat the request.',
  },
  CONFIG_QUEUE_FULL: {
    status: 503,
    retryable: true,
    means: 'Core prepares too many configurations. Wait for `Retry-After` seconds.',
  },
  PAGE_QUEUE_FULL: {
    status: 503,
    retryable: true,
    means: 'Core prepares too many pages. Wait for `Retry-After` seconds.',
  },
  SHUTTING_DOWN: {
    status: 503,
    retryable: true,
    means: 'This process is stopping. Nothing was stored; repeat the request.',
  },
  INVALID_SETTINGS: {
    status: 500,
    retryable: false,
    means: 'One or more environment variables have values that cannot be used.',
  },
  INVALID_ARGUMENT: {
    status: 400,
    retryable: false,
    means: 'A command-line argument cannot be used.',
  },
  CONFIRMATION_NEEDED: {
    status: 409,
    retryable: false,
    means: 'This cannot be undone. Nothing was done: give `--yes`, or use a terminal.',
  },
  PORT_TAKEN: { status: 500, retryable: false, means: 'Another program listens on the port.' },
  EMBEDDED_SERVER_FAILED: {
    status: 500,
    retryable: false,
    means: 'An embedded server cannot be installed or started.',
  },
  DATA_DIR_IN_USE: {
    status: 500,
    retryable: false,
    means: 'Another Core runs its embedded servers in the same data directory.',
  },
  DATA_DIR_UNUSABLE: {
    status: 500,
    retryable: false,
    means: 'Core cannot write to the data directory of its embedded servers.',
  },
  SECRETS_UNUSABLE: {
    status: 500,
    retryable: false,
    means: 'The file with the passwords of the embedded servers cannot be used.',
  },
  INSTANCE_MISMATCH: {
    status: 500,
    retryable: false,
    means: 'A store belongs to another Core than the data directory or the other store.',
  },
  NODE_UNSUPPORTED: {
    status: 500,
    retryable: false,
    means: 'The HTTP server has no native binary for this version of Node.',
  },
  PROCESS_FAILED: {
    status: 500,
    retryable: false,
    means: 'An HTTP or worker process of Core could not be started.',
  },
  XRAY_UNUSABLE: {
    status: 500,
    retryable: false,
    means: 'The Xray that tests configurations is missing, or does not run.',
  },
  REDIS_NOT_DURABLE: {
    status: 500,
    retryable: false,
    means: 'Redis does not fsync before it answers, or may evict keys.',
  },
  MIGRATION_FAILED: {
    status: 500,
    retryable: false,
    means: 'A migration failed, or an applied one differs from its file.',
  },
  SEGMENT_ROWS_LOST: {
    status: 500,
    retryable: false,
    means: 'A sealed segment no longer has all of its rows in Redis or ClickHouse.',
  },
  SEGMENT_NOT_SHOWN: {
    status: 503,
    retryable: true,
    means: 'ClickHouse stored rows of a segment but does not show them. Core retries.',
  },
  SEGMENT_REFUSED: {
    status: 500,
    retryable: false,
    means: 'ClickHouse refuses more rows of a segment than Core sets aside by itself.',
  },
} as const satisfies Record<string, { status: number; retryable: boolean; means: string }>;

export type ErrorCode = keyof typeof errorTable;

/** One place in a body that failed validation, e.g. `{ path: 'entries[3].bytesUp', … }`. */
export interface Issue {
  path: string;
  message: string;
}

/**
 * A path as an issue names it: `['entries', 3, 'bytesUp']` is `entries[3].bytesUp`.
 * @param whole What the empty path is called, which is the value as a whole.
 */
export function issuePath(path: readonly PropertyKey[], whole = ''): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else text += text === '' ? String(part) : `.${String(part)}`;
  }
  return text === '' ? whole : text;
}

/** A place in what an operator gave, and what is wrong there. */
export interface Fault {
  path: readonly PropertyKey[];
  message: string;
}

/**
 * A failure with a code from the registry. The message is for the client or operator and holds no
 * secret, no SQL and no stack; the cause is for the log.
 */
export class CoreError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly retryable: boolean;
  readonly issues: readonly Issue[] | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      cause?: unknown;
      issues?: readonly Issue[];
      headers?: Readonly<Record<string, string>>;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CoreError';
    this.code = code;
    this.status = errorTable[code].status;
    this.retryable = errorTable[code].retryable;
    this.issues = options.issues;
    this.headers = options.headers ?? {};
  }
}

/**
 * INVALID_ARGUMENT that names every fault in its message and its issues.
 * @param what Like `routing rule`.
 * @param whole What the empty path is called.
 */
export function invalidArgument(what: string, faults: readonly Fault[], whole: string): CoreError {
  const issues: Issue[] = faults.map(({ path, message }) => ({
    path: issuePath(path, whole),
    message,
  }));
  const text = issues.map((issue) => `${issue.path}: ${issue.message}`).join('; ');
  return new CoreError('INVALID_ARGUMENT', `Invalid ${what}: ${text}`, { issues });
}

/** Turns anything that was thrown into a CoreError: itself, or INTERNAL with the thing as its cause. */
export function toCoreError(thrown: unknown): CoreError {
  if (thrown instanceof CoreError) return thrown;
  return new CoreError('INTERNAL', 'Internal error', { cause: thrown });
}

/** The message of anything that was thrown, even if it is no Error. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The body of the answer to a client. */
export function errorBody(error: CoreError): string {
  return JSON.stringify({
    error: {
      code: error.code,
      message: error.message,
      ...(error.issues === undefined ? {} : { issues: error.issues }),
    },
  });
}
