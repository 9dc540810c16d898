import assert from 'node:assert/strict';
import { CoreError } from '../errors.ts';
import type { Copyable } from '../rows/wasm.ts';
import { classifyFailure } from '../stores/failures.ts';

/** The rows of one post as the spool keeps them. */
export interface Block {
  /** What redis/append.lua reads of the post, with how it is recognised if it comes again. */
  line: string;
  rows: number;
  /** `submit` copies them before it returns. */
  bytes: Copyable;
}

/** What one command sends to Redis: the rows of all its posts joined, in the order of the posts. */
export interface Flush {
  posts: readonly FlushedPost[];
  bytes: Buffer;
}

interface FlushedPost {
  line: string;
  rows: number;
}

/** Resolves to one number for each post: which of `verdicts` it is. */
export type SendFlush = (flush: Flush) => Promise<number[]>;

/** By the numbers that redis/append.lua answers. */
const verdicts = ['stored', 'duplicate', 'conflict', 'full', 'gaps', 'streams'] as const;
/**
 * What Redis says of a post. `duplicate`: it was stored before. `conflict`: its key or number was used with
 * another body. `full`: the backlog has no room for it. `gaps`: too many numbers below its own have not
 * come. `streams`: its node has too many numbered streams.
 */
export type Verdict = (typeof verdicts)[number];

export interface GroupCommit {
  submit(block: Block): Promise<Verdict>;
  /** Refuses new blocks, sends what waits, and resolves when all of it is answered. */
  close(): Promise<void>;
}

/** A flush takes what has gathered, up to these bounds; a post of more bytes is a flush by itself. */
const flushBytesMax = 1_048_576;
const flushPostsMax = 1_000;
/**
 * While Redis syncs one flush, a second one may be on its way. Then Redis need not wait until this
 * process has handled the first answer. The second one must be large, and at least half as large as
 * the first one: each flush costs Redis an fsync, and posts that wait a little longer come in larger
 * flushes.
 */
const flushesInFlightMax = 2;
const largePostsMin = 16;
const largeBytesMin = 65_536;
/**
 * A small flush starts at the earliest this long after the start of the flush before it. What a flush
 * costs Redis and this process hardly depends on its size, and a quiet disk would otherwise allow 350
 * a second. A post that comes after a pause of this length waits for nobody.
 */
const smallFlushIntervalMs = 5;
/** Buffers kept for later flushes: two are in flight while another one gathers. */
const sparesMax = 3;
/** Bytes that may wait in this process for one stream before it refuses posts. */
const queueBytesMax = 67_108_864;
/** How long a flush is repeated if its answer was lost. After that its posts are refused. */
const repeatMsMax = 3_000;
const repeatPauseMs = 100;

interface Waiting {
  resolve: (verdict: Verdict) => void;
  reject: (reason: unknown) => void;
}

/** A flush that still gathers posts. */
interface Gathering {
  buffer: Buffer;
  bytesLength: number;
  posts: FlushedPost[];
  waiting: Waiting[];
}

/** The group commit of one stream. */
interface State {
  readonly send: SendFlush;
  readonly intervalMs: number;
  /** The first one is the next flush. */
  readonly queue: Gathering[];
  readonly spares: Buffer[];
  queuedBytes: number;
  inFlight: number;
  /** Posts of the flush that was started last, and when that was. */
  lastPosts: number;
  lastStartMs: number;
  /** Runs while a small flush keeps its interval. */
  timer: NodeJS.Timeout | undefined;
  isClosed: boolean;
  onIdle: () => void;
}

/**
 * Gathers posts while a flush is in flight and sends them as the next flush. Under light load a post
 * waits for nobody, under heavy load the flushes grow by themselves, and in between small flushes keep
 * an interval.
 *
 * Rows are copied once, into the buffer that is sent, and buffers are used again: memory of their own
 * for each post and flush would make V8 collect its whole heap several times a second.
 *
 * If the connection breaks during a flush, nobody knows whether Redis stored it. Then the same flush is
 * sent again: every post has an identity, so what was stored answers `duplicate`. If Redis stays
 * away, the posts are refused with STORE_UNAVAILABLE, and the nodes repeat them.
 */
export function createGroupCommit(
  send: SendFlush,
  intervalMs: number = smallFlushIntervalMs,
): GroupCommit {
  const state: State = {
    send,
    intervalMs,
    queue: [],
    spares: [],
    queuedBytes: 0,
    inFlight: 0,
    lastPosts: 0,
    lastStartMs: Number.NEGATIVE_INFINITY,
    timer: undefined,
    isClosed: false,
    onIdle: () => undefined,
  };
  return { submit: (block) => submit(state, block), close: () => close(state) };
}

function submit(state: State, { line, rows, bytes }: Block): Promise<Verdict> {
  if (state.isClosed) {
    return Promise.reject(new CoreError('SHUTTING_DOWN', 'This process is stopping'));
  }
  if (state.queuedBytes + bytes.length > queueBytesMax) return Promise.resolve('full');
  state.queuedBytes += bytes.length;
  const into = gatheringFor(state, bytes.length);
  bytes.copy(into.buffer, into.bytesLength);
  into.bytesLength += bytes.length;
  into.posts.push({ line, rows });
  return new Promise((resolve, reject) => {
    into.waiting.push({ resolve, reject });
    startDue(state);
  });
}

async function close(state: State): Promise<void> {
  state.isClosed = true;
  clearTimeout(state.timer);
  startDue(state);
  if (state.inFlight > 0) await new Promise<void>((resolve) => (state.onIdle = resolve));
}

/** The last flush of the queue, or a new one if that has no room. */
function gatheringFor({ queue, spares }: State, bytesLength: number): Gathering {
  const last = queue.at(-1);
  if (last !== undefined && hasRoom(last, bytesLength)) return last;
  const spare = bytesLength <= flushBytesMax ? spares.pop() : undefined;
  const buffer = spare ?? Buffer.allocUnsafeSlow(Math.max(bytesLength, flushBytesMax));
  const next: Gathering = { buffer, bytesLength: 0, posts: [], waiting: [] };
  queue.push(next);
  return next;
}

function hasRoom({ buffer, bytesLength, posts }: Gathering, more: number): boolean {
  return posts.length < flushPostsMax && bytesLength + more <= buffer.length;
}

/** Starts every flush that is due, and a timer for one that only has to keep its interval. */
function startDue(state: State): void {
  const { queue } = state;
  for (let [next] = queue; next !== undefined && isDue(state, next); [next] = queue) {
    queue.shift();
    void flush(state, next);
  }
  if (queue.length === 0 || state.inFlight > 0 || state.timer !== undefined) return;
  const onTime = (): void => {
    state.timer = undefined;
    startDue(state);
  };
  state.timer = setTimeout(onTime, Math.ceil(intervalLeftMs(state)));
}

function isDue(state: State, next: Gathering): boolean {
  if (state.inFlight === 0) return state.isClosed || isLarge(next) || intervalLeftMs(state) <= 0;
  const mayBeSecond = isLarge(next) && next.posts.length * 2 >= state.lastPosts;
  return state.inFlight < flushesInFlightMax && mayBeSecond;
}

function isLarge({ bytesLength, posts }: Gathering): boolean {
  return posts.length >= largePostsMin || bytesLength >= largeBytesMin;
}

function intervalLeftMs({ lastStartMs, intervalMs }: State): number {
  return lastStartMs + intervalMs - performance.now();
}

async function flush(state: State, next: Gathering): Promise<void> {
  state.inFlight += 1;
  state.lastPosts = next.posts.length;
  state.lastStartMs = performance.now();
  state.queuedBytes -= next.bytesLength;
  const { isFirstAnswer } = await sendAndAnswer(next, state.send);
  // After a failure the client may still hold the buffer and write it to the connection.
  if (isFirstAnswer) keepSpare(state, next.buffer);
  state.inFlight -= 1;
  startDue(state);
  if (state.inFlight === 0) state.onIdle();
}

function keepSpare({ spares }: State, buffer: Buffer): void {
  if (buffer.length === flushBytesMax && spares.length < sparesMax) spares.push(buffer);
}

/** Sends a flush and tells each post what became of it. Never rejects. */
async function sendAndAnswer(
  gathered: Gathering,
  send: SendFlush,
): Promise<{ isFirstAnswer: boolean }> {
  const { buffer, bytesLength, posts, waiting } = gathered;
  try {
    const sent = { posts, bytes: buffer.subarray(0, bytesLength) };
    const { answers, attempts } = await sendUntilAnswered(sent, send);
    assert.equal(answers.length, posts.length, 'one verdict for each post');
    waiting.forEach(({ resolve }, index) => {
      const verdict = verdicts[answers[index] ?? -1];
      assert(verdict !== undefined, 'redis/append.lua answers 0 to 5');
      resolve(verdict);
    });
    return { isFirstAnswer: attempts === 1 };
  } catch (cause) {
    const failure = classifyFailure(cause);
    for (const { reject } of waiting) reject(failure);
    return { isFirstAnswer: false };
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
      const isAnswer = thrown instanceof Error && thrown.name === 'ReplyError';
      if (isAnswer || performance.now() + repeatPauseMs > deadlineMs) throw thrown;
      await new Promise((resume) => setTimeout(resume, repeatPauseMs));
    }
  }
}
