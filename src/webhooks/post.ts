import { createHmac } from 'node:crypto';

/** The whole time that the webhook has for an answer. */
export const webhookTimeoutMs = 10_000;

export interface WebhookTarget {
  url: string;
  secret: string;
  /** For the whole request. */
  timeoutMs: number;
}

interface WebhookAnswer {
  status: number;
  /** The first bytes of the answer's body, up to `answerBytesMax`. */
  body: Buffer;
}

/**
 * Posts one signed body to the operator's own URL and resolves with the answer, whatever its status.
 * It follows no redirect, because a body that is signed for one place must not go to another.
 * @throws Error with a message for operators: it holds no URL, no password and no secret.
 */
export async function postSigned(
  target: WebhookTarget,
  event: { eventId: number; body: string; answerBytesMax: number },
  signal: AbortSignal,
): Promise<WebhookAnswer> {
  const timeout = AbortSignal.timeout(target.timeoutMs);
  const { url, authorization } = webhookAddress(target.url);
  try {
    const response = await fetch(url, {
      method: 'POST',
      redirect: 'manual',
      headers: {
        'content-type': 'application/json',
        'user-agent': 'core-webhook',
        ...(authorization === undefined ? {} : { authorization }),
        'x-core-event-id': String(event.eventId),
        'x-core-signature': signature(target.secret, event.body, Math.floor(Date.now() / 1_000)),
      },
      body: event.body,
      signal: AbortSignal.any([timeout, signal]),
    });
    return { status: response.status, body: await firstBytes(response, event.answerBytesMax) };
  } catch (cause) {
    if (timeout.aborted) {
      throw new Error(`The webhook gave no answer within ${target.timeoutMs} ms`, { cause });
    }
    throw new Error(`The webhook cannot be reached ${reasonOf(cause)}`, { cause });
  }
}

/** What an operator should know of an answer's status; undefined for success. */
export function refusalOf(status: number): string | undefined {
  if (status >= 200 && status <= 299) return undefined;
  if (status === 401) {
    return 'The webhook answered 401: the user and password in CORE_WEBHOOK_URL are missing or wrong';
  }
  const isRedirect = status >= 300 && status <= 399;
  return `The webhook answered ${status}${isRedirect ? ', a redirect, which is not followed' : ''}`;
}

/**
 * Takes the operator's URL apart. A user and a password in it become Basic authentication,
 * percent-decoded, because fetch refuses them in a URL.
 *
 * Source: RFC 7617, section 2, with UTF-8.
 */
function webhookAddress(given: string): { url: string; authorization?: string } {
  const url = new URL(given);
  if (url.username === '' && url.password === '') return { url: url.href };
  const pair = [url.username, url.password].map(decodeURIComponent).join(':');
  url.username = '';
  url.password = '';
  return { url: url.href, authorization: `Basic ${Buffer.from(pair).toString('base64')}` };
}

/**
 * Value of `x-core-signature`: the time of sending, and the HMAC-SHA256 of `<time>.<body>` in hex.
 * The time is signed too, so that a receiver can refuse a request that somebody replays later.
 */
function signature(secret: string, body: string, unixSeconds: number): string {
  const mac = createHmac('sha256', secret).update(`${unixSeconds}.${body}`).digest('hex');
  return `t=${unixSeconds},v1=${mac}`;
}

async function firstBytes(response: Response, bytesMax: number): Promise<Buffer> {
  const reader = response.body?.getReader();
  const parts: Uint8Array[] = [];
  for (let bytes = 0; reader !== undefined && bytes < bytesMax; ) {
    const { value } = await reader.read();
    if (value === undefined) break;
    parts.push(value);
    bytes += value.length;
  }
  await reader?.cancel();
  return Buffer.concat(parts).subarray(0, bytesMax);
}

const meanings: Partial<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens on its port',
  ECONNRESET: 'it closed the connection',
  UND_ERR_SOCKET: 'it closed the connection',
  ENOTFOUND: 'its host name is unknown',
  EAI_AGAIN: 'its host name cannot be looked up',
  EHOSTUNREACH: 'there is no way to its host',
  ENETUNREACH: 'there is no way to its network',
  EPROTO: 'TLS failed',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it speaks no TLS: should the URL begin with http://?',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another host name',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is self-signed; see NODE_EXTRA_CA_CERTS',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is self-signed; see NODE_EXTRA_CA_CERTS',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is signed by an unknown authority',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is signed by an unknown authority',
};

/** The error code and its meaning. The message of fetch is left out, since it may name the URL. */
function reasonOf(thrown: unknown): string {
  const cause = (thrown as { cause?: { code?: unknown; message?: unknown } } | null)?.cause;
  if (cause?.message === 'bad port') return '(bad port): fetch does not connect to this port';
  const code = String(cause?.code ?? (thrown as Error | null)?.name ?? 'unknown');
  const meaning = code.startsWith('HPE_') ? 'it does not answer in HTTP' : meanings[code];
  return meaning === undefined ? `(${code})` : `(${code}): ${meaning}`;
}
