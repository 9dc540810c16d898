import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { CoreError, type ErrorCode, type Issue } from '../errors.ts';
import { projectRoot } from '../root.ts';
import type { PackedRows } from '../rows/pack.ts';
import type { Kind } from '../spool/streams.ts';

/** A body for the thread. `body` moves there without a copy. */
export interface LargeBodyJob {
  kind: Kind;
  nodeId: number;
  body: Uint8Array<ArrayBuffer>;
  /** This process's clock, which bounds the times in the body. */
  nowMs: number;
}

export type LargeBodyAnswer =
  | { rows: number; bytes: Uint8Array<ArrayBuffer> }
  | { code: ErrorCode; message: string; issues: readonly Issue[] | undefined; cause: string };

/** Decodes and packs large bodies in a thread. */
export interface LargeBodies {
  /**
   * Copies the body before it returns.
   * @throws CoreError MALFORMED_JSON, VALIDATION_FAILED; BACKLOG_FULL if too much waits already, from this
   * node or from all; SHUTTING_DOWN after `close`; INTERNAL if the thread ended.
   */
  pack(given: { kind: Kind; nodeId: number; body: Uint8Array }): Promise<PackedRows>;
  close(): Promise<void>;
}

/** The event loop decodes a body up to this size itself, which takes 6 ms at worst. */
export const smallBodyBytesMax = 65_536;
/** Bytes that may wait of one node, so that it cannot fill the queue. One body may always wait. */
const nodeBytesMax = 8_388_608;
/** Bytes that may wait of all nodes. */
const queueBytesMax = 67_108_864;
const threadFile = path.join(projectRoot, 'dist', 'src', 'accept', 'large-body-thread.js');

interface Waiting {
  job: LargeBodyJob;
  resolve: (packed: PackedRows) => void;
  reject: (reason: CoreError) => void;
}

/**
 * Runs one thread, which it starts for the first body. JSON.parse and zod cannot be interrupted: 4
 * MiB take them up to half a second, and meanwhile the event loop could answer no heartbeat. Nodes
 * take turns: if one node sends large bodies all the time, each body of another node waits for only
 * one of them.
 */
export function createLargeBodies(options: {
  entriesMax: number;
  nowMs: () => number;
  file?: string;
}): LargeBodies {
  const queue = createTurns();
  let thread: Worker | undefined;
  let current: Waiting | undefined;
  let isClosed = false;

  const next = (): void => {
    if (current !== undefined || isClosed) return;
    current = queue.take();
    if (current === undefined) return;
    thread ??= start();
    thread.ref();
    const { job } = current;
    thread.postMessage(job, [job.body.buffer]);
  };
  const end = (answer: (waiting: Waiting) => void): void => {
    const ended = current;
    current = undefined;
    // An idle thread must not keep a process alive that has stopped serving.
    thread?.unref();
    if (ended !== undefined) answer(ended);
    next();
  };
  const start = (): Worker => {
    const { entriesMax, file = threadFile } = options;
    // Passes on no flags: those for V8 apply to every thread, and the others are a test runner's.
    const started = new Worker(file, { workerData: { entriesMax }, execArgv: [] });
    let cause: unknown;
    started.on('message', (answer: LargeBodyAnswer) => end((waiting) => deliver(waiting, answer)));
    started.once('error', (error) => {
      cause = error;
    });
    started.once('exit', (code) => {
      if (thread === started) thread = undefined;
      if (isClosed) return;
      cause ??= new Error(`exit code ${code}`);
      const error = new CoreError('INTERNAL', 'The thread for large bodies ended', { cause });
      end(({ reject }) => reject(error));
    });
    return started;
  };

  return {
    pack({ kind, nodeId, body }) {
      if (isClosed) return Promise.reject(closing());
      if (!queue.hasRoom(nodeId, body.length)) return Promise.reject(full());
      return new Promise((resolve, reject) => {
        const job = { kind, nodeId, body: new Uint8Array(body), nowMs: options.nowMs() };
        queue.add({ job, resolve, reject });
        next();
      });
    },
    async close() {
      isClosed = true;
      end(({ reject }) => reject(closing()));
      for (let left = queue.take(); left !== undefined; left = queue.take()) left.reject(closing());
      // Keeps the process alive until the thread has ended.
      thread?.ref();
      await thread?.terminate();
    },
  };
}

function deliver({ resolve, reject }: Waiting, answer: LargeBodyAnswer): void {
  if ('bytes' in answer) {
    const { rows, bytes } = answer;
    resolve({ rows, bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) });
    return;
  }
  const { code, message, issues, cause } = answer;
  reject(new CoreError(code, message, { cause, ...(issues === undefined ? {} : { issues }) }));
}

function closing(): CoreError {
  return new CoreError('SHUTTING_DOWN', 'This process is stopping', {
    headers: { 'Retry-After': '1' },
  });
}

function full(): CoreError {
  return new CoreError('BACKLOG_FULL', 'Too many large bodies wait already, try again later');
}

/** Bodies that wait, by node. The next one comes from the node whose turn was longest ago. */
function createTurns() {
  const byNode = new Map<number, { waiting: Waiting[]; bytes: number }>();
  let queuedBytes = 0;
  return {
    hasRoom(nodeId: number, bytes: number): boolean {
      const own = byNode.get(nodeId);
      if (own !== undefined && own.bytes + bytes > nodeBytesMax) return false;
      return byNode.size === 0 || queuedBytes + bytes <= queueBytesMax;
    },
    add(one: Waiting): void {
      const { nodeId, body } = one.job;
      const own = byNode.get(nodeId) ?? { waiting: [], bytes: 0 };
      byNode.set(nodeId, own);
      own.waiting.push(one);
      own.bytes += body.length;
      queuedBytes += body.length;
    },
    take(): Waiting | undefined {
      for (const [nodeId, own] of byNode) {
        byNode.delete(nodeId);
        const one = own.waiting.shift();
        if (one === undefined) continue;
        own.bytes -= one.job.body.length;
        queuedBytes -= one.job.body.length;
        if (own.waiting.length > 0) byNode.set(nodeId, own);
        return one;
      }
      return undefined;
    },
  };
}
