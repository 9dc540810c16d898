import { ClickHouseError } from '@clickhouse/client';
import { CoreError, toCoreError } from '../errors.ts';

/** Socket and DNS failures, from any client. */
const networkCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_SOCKET',
]);

/**
 * SQLSTATEs after which the same request may succeed later: connection (08), resources (53), operator
 * intervention (57), deadlock and serialisation (40), lock not available (55P03), a standby that refuses
 * writes (25006), and I/O errors such as a full disk (58).
 */
const retryableSqlState = /^(08|53|57|58|40)|^(55P03|25006)$/;

/** Redis refuses for a while: it is full, has a disk error, still loads, fails over, or moves slots. */
const retryableRedisReply =
  /^(OOM|MISCONF|LOADING|READONLY|BUSY|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|NOREPLICAS)\b/;

const retryableMessage =
  /Connection (is closed|terminated|ended)|timeout exceeded when trying to connect|Command timed out|Query read timeout|Stream isn't writeable|max retries per request|Client has encountered a connection error|Timeout error|socket hang up|Connection terminated/i;

/** Whether `thrown` means that a store cannot be reached or refuses for a while. */
function isStoreAway(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false;
  if (thrown instanceof AggregateError) return thrown.errors.some(isStoreAway);
  if (thrown instanceof ClickHouseError) return true;
  const code = (thrown as { code?: unknown }).code;
  if (typeof code === 'string' && (networkCodes.has(code) || retryableSqlState.test(code))) {
    return true;
  }
  return retryableRedisReply.test(thrown.message) || retryableMessage.test(thrown.message);
}

/**
 * The CoreError of anything that was thrown, for the edges (route, job, main). If a store cannot be reached
 * it is STORE_UNAVAILABLE, with the client's error as its cause. Anything unknown is INTERNAL.
 */
export function classifyFailure(thrown: unknown): CoreError {
  if (thrown instanceof CoreError) return thrown;
  if (isStoreAway(thrown)) {
    return new CoreError('STORE_UNAVAILABLE', 'A store is not available, try again', {
      cause: thrown,
      headers: { 'Retry-After': '2' },
    });
  }
  return toCoreError(thrown);
}
