import assert from 'node:assert/strict';
import { CoreError } from '../errors.ts';
import { classifyFailure } from '../stores/failures.ts';
import type { Identity } from './idempotency.ts';

/** Packed rows of one request, and how to recognise it again. */
export interface Block extends Identity {
  rows: number;
  bytes: Buffer;
}

export type Verdict = 'stored' | 'duplicate' | 'conflict' | 'full';
/** By the numbers that redis/append.lua answers. */
const verdicts: readonly Verdict[] = ['stored', 'duplicate', 'conflict', 'full'];

export interface GroupCommit {
  submit(block: Block): Promise<Verdict>;
  close(): Promise<void>;
}

interface Waiting {
  block: Block;
  resolve: (verdict: Verdict) => void;
  reject: (reason: unknown) => void;
}

/** A flush takes what has gathered, up to these bounds. */
const flushBytesMax = 1_048_576;
const flushRequestsMax = 1_000;
/** What may wait in one process for one stream before accept refuses. */
const queueBytesMax = 67_108_864;
/** How long a flush whose answer was lost is repeated before its requests are refused. */
const repeatMsMax = 3_000;
const repeatPauseMs = 100;

/**
 * Group commit without timers: at most one flush is in flight; whatever arrives meanwhile is the
 * next one. Under light load a request waits for nobody, under heavy load batches grow by
 * themselves.
 *
 * When the connection breaks during a flush nobody knows whether it was stored. The same flush is
 * then sent again: every request has an idempotency key, so what was stored answers `duplicate`.
 * Where Redis stays away the requests are refused as STORE_UNAVAILABLE, and the nodes repeat them.
 */
export function createGroupCommit(
  flush: (blocks: readonly Block[]) => Promise<number[]>,
): GroupCommit {
  const queue: Waiting[] = [];
  let queuedBytes = 0;
  let running: Promise<void> | undefined;
  let closed = false;

  const run = async (): Promise<void> => {
    while (queue.length > 0) {
      const batch = takeBatch(queue);
      queuedBytes -= batch.reduce((sum, waiting) => sum + waiting.block.bytes.length, 0);
      await settle(batch, flush);
    }
    running = undefined;
  };

  return {
    submit(block) {
      if (closed) {
        return Promise.reject(new CoreError('SHUTTING_DOWN', 'This process is stopping'));
      }
      if (queuedBytes + block.bytes.length > queueBytesMax) return Promise.resolve('full');
      queuedBytes += block.bytes.length;
      return new Promise((resolve, reject) => {
        queue.push({ block, resolve, reject });
        running ??= run();
      });
    },
    async close() {
      closed = true;
      await running;
    },
  };
}

function takeBatch(queue: Waiting[]): Waiting[] {
  let count = 0;
  let bytes = 0;
  while (count < queue.length && count < flushRequestsMax && bytes < flushBytesMax) {
    bytes += queue[count]?.block.bytes.length ?? 0;
    count += 1;
  }
  return queue.splice(0, count);
}

async function settle(
  batch: readonly Waiting[],
  flush: (blocks: readonly Block[]) => Promise<number[]>,
): Promise<void> {
  try {
    const answers = await flushUntilAnswered(
      batch.map((waiting) => waiting.block),
      flush,
    );
    assert.equal(answers.length, batch.length, 'one verdict a request');
    batch.forEach((waiting, index) => {
      const verdict = verdicts[answers[index] ?? -1];
      assert(verdict !== undefined, 'redis/append.lua answers 0 to 3');
      waiting.resolve(verdict);
    });
  } catch (cause) {
    const failure = classifyFailure(cause);
    for (const waiting of batch) waiting.reject(failure);
  }
}

async function flushUntilAnswered(
  blocks: readonly Block[],
  flush: (blocks: readonly Block[]) => Promise<number[]>,
): Promise<number[]> {
  const deadlineMs = performance.now() + repeatMsMax;
  for (;;) {
    try {
      return await flush(blocks);
    } catch (thrown) {
      // A reply such as OOM or MISCONF is an answer: the script wrote nothing.
      const answered = thrown instanceof Error && thrown.name === 'ReplyError';
      if (answered || performance.now() + repeatPauseMs > deadlineMs) throw thrown;
      await new Promise((resume) => setTimeout(resume, repeatPauseMs));
    }
  }
}
