import { type AcceptDeps, acceptPost, type DropReason } from '../../accept/accept.ts';
import { limits } from '../../contract/limits.ts';
import { CoreError } from '../../errors.ts';
import { postGapsMax, postStreamsMax } from '../../spool/spool.ts';
import type { Kind } from '../../spool/streams.ts';
import { callerOf, okReply, type Route } from '../route.ts';

/** POST /node/usage: usage entries by the minute. */
export function usageRoute(deps: AcceptDeps): Route {
  return ingestRoute(deps, 'usage', '/node/usage');
}

/** POST /node/outbound-usage: traffic by outbound tag since the last post. */
export function outboundUsageRoute(deps: AcceptDeps): Route {
  return ingestRoute(deps, 'outbound', '/node/outbound-usage');
}

/** POST /node/session-events: who came online or went offline. */
export function sessionEventsRoute(deps: AcceptDeps): Route {
  return ingestRoute(deps, 'session', '/node/session-events');
}

function ingestRoute(deps: AcceptDeps, kind: Kind, path: string): Route {
  return {
    method: 'POST',
    path,
    authenticated: true,
    // server.ts takes the smaller one of this and CORE_BODY_BYTES_MAX, so that setting is the bound.
    bodyBytesMax: Number.POSITIVE_INFINITY,
    readsAtOnce: true,
    async handle(request) {
      const { nodeId } = callerOf(request);
      const { body, headers } = request;
      const outcome = await acceptPost(deps, { kind, nodeId, body, headers });
      if (outcome.outcome === 'dropped') throw ingestRefusals[outcome.reason]();
      return okReply;
    },
  };
}

/** What Core tells the node if it stores nothing of the post. */
export const ingestRefusals: Readonly<Record<DropReason, () => CoreError>> = {
  'idempotency-key-too-long': () =>
    new CoreError(
      'INVALID_HEADER',
      `Idempotency-Key is over ${limits.idempotencyKeyCharsMax} characters`,
    ),
  'post-stream-wrong': () =>
    new CoreError('INVALID_HEADER', 'x-node-stream is not a UUID, and x-node-sequence needs one'),
  'post-sequence-wrong': () =>
    new CoreError(
      'INVALID_HEADER',
      'x-node-sequence is not an integer from 1 to 2^53-1, and x-node-stream needs one',
    ),
  'post-number-reused': () =>
    new CoreError(
      'POST_NUMBER_REUSED',
      'This x-node-sequence was used with another body: if the node counts again, it needs a new x-node-stream',
    ),
  'post-number-gaps': () =>
    new CoreError(
      'POST_NUMBER_GAPS',
      `Over ${postGapsMax} gaps of this x-node-stream would be open: send the posts of lower numbers first`,
    ),
  'post-streams-full': () =>
    new CoreError(
      'POST_STREAMS_FULL',
      `This node has ${postStreamsMax} numbered streams already: keep one x-node-stream over restarts`,
    ),
  'idempotency-key-reused': () =>
    new CoreError('IDEMPOTENCY_KEY_REUSED', 'This Idempotency-Key was used with another body'),
  'backlog-full': () =>
    new CoreError('BACKLOG_FULL', 'The backlog is full, try again later', {
      headers: { 'Retry-After': '5' },
    }),
  'late-backlog-full': () =>
    new CoreError(
      'LATE_BACKLOG_FULL',
      'The backlog of old dates is full, try again later; newer posts may be taken',
      { headers: { 'Retry-After': '30' } },
    ),
};
