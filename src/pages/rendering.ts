import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { CoreError, type ErrorCode } from '../errors.ts';
import { projectRoot } from '../root.ts';
import type { PageFormat } from './format.ts';
import type { Page } from './render-page.ts';

/** What the thread gets at its start. */
export interface PageThreadData {
  databaseUrl: string;
  title: string;
}

export interface PageJob {
  number: number;
  /** SHA-256 of the token. */
  hash: Uint8Array;
  format: PageFormat;
}

/** The page; undefined if no subscription has the token. */
export type PageAnswer =
  | { number: number; page: Page | undefined }
  | { number: number; code: ErrorCode; message: string; cause: string };

/** Reads and renders pages in a thread. */
export interface PageRendering {
  /**
   * The page; undefined if no subscription has the token.
   * @throws CoreError PAGE_QUEUE_FULL; STORE_UNAVAILABLE; SHUTTING_DOWN after `close`; INTERNAL if the
   * thread ended.
   */
  render(hash: Uint8Array, format: PageFormat): Promise<Page | undefined>;
  close(): Promise<void>;
}

/** Jobs that the thread may have at a time. */
const jobsMax = 100;
const threadFile = path.join(projectRoot, 'dist', 'src', 'pages', 'page-thread.js');

interface Waiting {
  resolve: (page: Page | undefined) => void;
  reject: (reason: CoreError) => void;
}

/**
 * Runs one thread with connections of its own, which it starts for the first page. A page with a hundred
 * links takes milliseconds to write, and meanwhile the event loop could answer no node.
 */
export function createPageRendering(data: PageThreadData): PageRendering {
  const waiting = new Map<number, Waiting>();
  let thread: Worker | undefined;
  let lastNumber = 0;
  let isClosed = false;

  const start = (): Worker => {
    const started = new Worker(threadFile, { workerData: data, execArgv: [] });
    let cause: unknown;
    started.on('message', (answer: PageAnswer) => {
      const one = waiting.get(answer.number);
      waiting.delete(answer.number);
      if (waiting.size === 0) started.unref();
      if (one !== undefined) deliver(one, answer);
    });
    started.once('error', (error) => {
      cause = error;
    });
    started.once('exit', (code) => {
      if (thread === started) thread = undefined;
      if (isClosed) return;
      cause ??= new Error(`exit code ${code}`);
      rejectAll(new CoreError('INTERNAL', 'The thread for subscription pages ended', { cause }));
    });
    return started;
  };
  const rejectAll = (error: CoreError): void => {
    for (const one of waiting.values()) one.reject(error);
    waiting.clear();
  };

  return {
    render(hash, format) {
      if (isClosed) return Promise.reject(closing());
      if (waiting.size >= jobsMax) return Promise.reject(full());
      return new Promise((resolve, reject) => {
        lastNumber += 1;
        waiting.set(lastNumber, { resolve, reject });
        thread ??= start();
        // An idle thread must not keep a process alive that has stopped serving.
        thread.ref();
        const job: PageJob = { number: lastNumber, hash, format };
        thread.postMessage(job);
      });
    },
    async close() {
      isClosed = true;
      rejectAll(closing());
      thread?.ref();
      await thread?.terminate();
    },
  };
}

function deliver({ resolve, reject }: Waiting, answer: PageAnswer): void {
  if ('code' in answer) reject(new CoreError(answer.code, answer.message, { cause: answer.cause }));
  else resolve(answer.page);
}

function closing(): CoreError {
  return new CoreError('SHUTTING_DOWN', 'This process is stopping', {
    headers: { 'Retry-After': '1' },
  });
}

function full(): CoreError {
  return new CoreError(
    'PAGE_QUEUE_FULL',
    'Too many subscription pages are being prepared; try again',
    {
      headers: { 'Retry-After': '2' },
    },
  );
}
