import assert from 'node:assert/strict';
import { CoreError } from '../errors.ts';
import { classifyFailure } from '../stores/failures.ts';

/** How a post is recognised when it comes again. */
export interface Identity {
  /** Unique among the posts of all nodes to one stream; without white space. */
  key: string;
  /**
   * Of the unpacked body: the same key with another one is another request. Empty where the key is
   * enough.
   */
  fingerprint: string;
}

/** Packed rows of one request, and how to recognise it again. */
export interface Block extends Identity {
  rows: number;
  /** Copied before `submit` returns: it may be a view of memory that is used again. */
  bytes: Buffer;
}

/** What is sent to Redis at once: the rows of all requests joined, in the order of the requests. */
export interface Flush {
  requests: readonly FlushedRequest[];
  bytes: Buffer;
}

export interface FlushedRequest extends Identity {
  rows: number;
  bytesLength: number;
}

/** One verdict a request, by its number. */
export type SendFlush = (flush: Flush) => Promise<number[]>;

export type Verdict = 'stored' | 'duplicate' | 'conflict' | 'full';
/** By the numbers that redis/append.lua answers. */
const verdicts: readonly Verdict[] = ['stored', 'duplicate', 'conflict', 'full'];

export interface GroupCommit {
  submit(block: Block): Promise<Verdict>;
  close(): Promise<void>;
}

interface Waiting {
  resolve: (verdict: Verdict) => void;
  reject: (reason: unknown) => void;
}

/** The next flush, as it gathers. */
interface Gathering {
  buffer: Buffer;
  bytesLength: number;
  requests: FlushedRequest[];
  waiting: Waiting[];
}

/** A flush takes what has gathered, up to these bounds; a larger request is a flush by itself. */
const flushBytesMax = 1_048_576;
const flushRequestsMax = 1_000;
/**
 * While Redis syncs one flush, a second one may be on its way to it, so that it need not wait for this
 * process to have dealt with the first one's answer. Not one that is small, or under half of the first
 * one: each costs Redis an fsync, and what waits a little longer comes in larger flushes.
 */
const flushesInFlightMax = 2;
const largeRequestsMin = 16;
const largeBytesMin = 65_536;
/**
 * A small flush begins at the earliest this long after the one before it began, so that on a quiet disk
 * a process makes at most two hundred a second and not 350: what a flush costs Redis and this process
 * hardly depends on what is in it. A request that comes after a pause of this length waits for nobody.
 */
const smallFlushIntervalMs = 5;
/** Buffers kept for later: two are in flight while another one gathers. */
const sparesMax = 3;
/** What may wait in one process for one stream before accept refuses. */
const queueBytesMax = 67_108_864;
/** How long a flush whose answer was lost is repeated before its requests are refused. */
const repeatMsMax = 3_000;
const repeatPauseMs = 100;

/**
 * Group commit: one flush is in flight, or two where the second one is large; whatever arrives
 * meanwhile is the next one. Under light load a request waits for nobody, under heavy load batches
 * grow by themselves, and in between small flushes keep a distance of `intervalMs`.
 *
 * Rows are copied once, into the buffer that is sent, and buffers are used again: memory of their own
 * for each request and flush would make V8 collect its whole heap several times a second.
 *
 * When the connection breaks during a flush nobody knows whether it was stored. The same flush is
 * then sent again: every request has an idempotency key, so what was stored answers `duplicate`.
 * Where Redis stays away the requests are refused as STORE_UNAVAILABLE, and the nodes repeat them.
 */
export function createGroupCommit(
  send: SendFlush,
  intervalMs: number = smallFlushIntervalMs,
): GroupCommit {
  const queue: Gathering[] = [];
  const spares: Buffer[] = [];
  let queuedBytes = 0;
  let inFlight = 0;
  /** Of the flush that was started last. */
  let lastRequests = 0;
  let lastStartMs = Number.NEGATIVE_INFINITY;
  /** Runs while a small flush keeps its distance. */
  let distance: NodeJS.Timeout | undefined;
  let closed = false;
  let onIdle: () => void = () => undefined;

  const restMs = (): number => lastStartMs + intervalMs - performance.now();

  const isDue = (next: Gathering): boolean => {
    if (inFlight === 0) return closed || isLarge(next) || restMs() <= 0;
    return (
      inFlight < flushesInFlightMax && isLarge(next) && next.requests.length * 2 >= lastRequests
    );
  };

  const start = async (next: Gathering): Promise<void> => {
    inFlight += 1;
    lastRequests = next.requests.length;
    lastStartMs = performance.now();
    queuedBytes -= next.bytesLength;
    const isSure = await settle(next, send);
    // Of a flush that failed, something may still be about to be written to the connection.
    if (isSure && next.buffer.length === flushBytesMax && spares.length < sparesMax) {
      spares.push(next.buffer);
    }
    inFlight -= 1;
    startDue();
    if (inFlight === 0) onIdle();
  };

  const startDue = (): void => {
    for (let [next] = queue; next !== undefined && isDue(next); [next] = queue) {
      queue.shift();
      void start(next);
    }
    if (queue.length > 0 && inFlight === 0 && distance === undefined) {
      distance = setTimeout(() => {
        distance = undefined;
        startDue();
      }, Math.ceil(restMs()));
    }
  };

  const gather = (bytesLength: number): Gathering => {
    const last = queue.at(-1);
    if (last !== undefined && hasRoom(last, bytesLength)) return last;
    const isUsual = bytesLength <= flushBytesMax;
    const buffer =
      (isUsual ? spares.pop() : undefined) ??
      Buffer.allocUnsafeSlow(Math.max(bytesLength, flushBytesMax));
    const next: Gathering = { buffer, bytesLength: 0, requests: [], waiting: [] };
    queue.push(next);
    return next;
  };

  return {
    submit({ key, fingerprint, rows, bytes }) {
      if (closed) {
        return Promise.reject(new CoreError('SHUTTING_DOWN', 'This process is stopping'));
      }
      if (queuedBytes + bytes.length > queueBytesMax) return Promise.resolve('full');
      queuedBytes += bytes.length;
      const into = gather(bytes.length);
      into.buffer.set(bytes, into.bytesLength);
      into.bytesLength += bytes.length;
      into.requests.push({ key, fingerprint, rows, bytesLength: bytes.length });
      return new Promise((resolve, reject) => {
        into.waiting.push({ resolve, reject });
        startDue();
      });
    },
    async close() {
      closed = true;
      clearTimeout(distance);
      startDue();
      if (inFlight > 0) await new Promise<void>((resolve) => (onIdle = resolve));
    },
  };
}

function isLarge({ bytesLength, requests }: Gathering): boolean {
  return requests.length >= largeRequestsMin || bytesLength >= largeBytesMin;
}

function hasRoom({ buffer, bytesLength, requests }: Gathering, more: number): boolean {
  return requests.length < flushRequestsMax && bytesLength + more <= buffer.length;
}

/** Whether the flush was answered at its first attempt. Never rejects: the requests are told. */
async function settle(gathered: Gathering, send: SendFlush): Promise<boolean> {
  const { buffer, bytesLength, requests, waiting } = gathered;
  try {
    const flush = { requests, bytes: buffer.subarray(0, bytesLength) };
    const { answers, attempts } = await sendUntilAnswered(flush, send);
    assert.equal(answers.length, requests.length, 'one verdict a request');
    waiting.forEach(({ resolve }, index) => {
      const verdict = verdicts[answers[index] ?? -1];
      assert(verdict !== undefined, 'redis/append.lua answers 0 to 3');
      resolve(verdict);
    });
    return attempts === 1;
  } catch (cause) {
    const failure = classifyFailure(cause);
    for (const { reject } of waiting) reject(failure);
    return false;
  }
}

async function sendUntilAnswered(
  flush: Flush,
  send: SendFlush,
): Promise<{ answers: number[]; attempts: number }> {
  const deadlineMs = performance.now() + repeatMsMax;
  for (let attempts = 1; ; attempts += 1) {
    try {
      return { answers: await send(flush), attempts };
    } catch (thrown) {
      // A reply such as OOM or MISCONF is an answer: the script wrote nothing.
      const answered = thrown instanceof Error && thrown.name === 'ReplyError';
      if (answered || performance.now() + repeatPauseMs > deadlineMs) throw thrown;
      await new Promise((resume) => setTimeout(resume, repeatPauseMs));
    }
  }
}
