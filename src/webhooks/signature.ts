import { createHmac } from 'node:crypto';

/**
 * Value of `x-core-signature`: the time of sending and the HMAC-SHA256 of `<time>.<body>` in hex.
 * The time is signed too, so that a receiver can refuse a request that somebody replays later.
 */
export function signature(secret: string, body: string, unixSeconds: number): string {
  const mac = createHmac('sha256', secret).update(`${unixSeconds}.${body}`).digest('hex');
  return `t=${unixSeconds},v1=${mac}`;
}
