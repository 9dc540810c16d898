import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { readJson, syncFolder, writeDurable } from '../../src/durable-file.ts';
import type { IngestPost } from './client.ts';

/** Up to where the proxy's counters have been turned into posts. */
export interface Baseline {
  /** The process that counted: a new one starts from zero. */
  proxyId: string;
  counters: Record<string, number>;
  /** `<userId> <protocol>` to when its counters last moved, in ms since the epoch. */
  online: Record<string, number>;
}

/** A post as it lies in the spool. `body` is sent byte for byte, as often as it takes. */
export interface SpooledPost {
  name: string;
  path: IngestPost['path'];
  idempotencyKey: string;
  body: string;
}

interface Journal {
  sequence: number;
  baseline: Baseline;
  /** Committed, and perhaps not yet in the spool. */
  posts: SpooledPost[];
}

const refusedMax = 1_000;
const noBaseline: Baseline = { proxyId: '', counters: {}, online: {} };

export type Ledger = ReturnType<typeof openLedger>;

/**
 * What the node has counted and Core has not yet acknowledged: `journal.json` and a folder with a
 * file a post. New posts and the baseline they lead to are one atomic write of the journal; only
 * then do the posts become files. A crash before that write leaves the old baseline, so that the
 * bytes are counted again with the next posts; a crash after it makes the files anew at the start.
 */
export function openLedger(dataDir: string, options: { bytesMax: number }) {
  const journalFile = path.join(dataDir, 'journal.json');
  const spoolDir = path.join(dataDir, 'spool');
  const refusedDir = path.join(dataDir, 'refused');
  for (const folder of [spoolDir, refusedDir]) mkdirSync(folder, { recursive: true, mode: 0o700 });
  let journal: Journal = readJson<Journal>(journalFile) ?? {
    sequence: 0,
    baseline: noBaseline,
    posts: [],
  };
  const committed = new Set(journal.posts.map((post) => post.name));
  // Names begin with the number of their commit, so that their order is the order of time.
  const waiting = readdirSync(spoolDir)
    .filter((name) => name.endsWith('.json') && !committed.has(name))
    .sort()
    .map((name) => ({ name, bytes: statSync(path.join(spoolDir, name)).size }));
  let bytes = waiting.reduce((sum, file) => sum + file.bytes, 0);
  let wake: (() => void) | undefined;

  /** Nothing of it is sent before all of it lies in the spool, so doing it again does no harm. */
  const unpack = (): void => {
    const files = journal.posts.map((post) => {
      const content = JSON.stringify(post);
      writeDurable(path.join(spoolDir, post.name), content);
      return { name: post.name, bytes: Buffer.byteLength(content) };
    });
    writeDurable(journalFile, JSON.stringify({ ...journal, posts: [] }));
    journal = { ...journal, posts: [] };
    waiting.push(...files);
    for (const file of files) bytes += file.bytes;
    wake?.();
  };
  if (journal.posts.length > 0) unpack();

  const forget = (name: string): void => {
    if (waiting[0]?.name !== name) throw new Error(`${name} is not the oldest of the spool`);
    bytes -= waiting.shift()?.bytes ?? 0;
  };

  return {
    baseline: () => journal.baseline,
    size: () => ({ posts: waiting.length, bytes }),
    /** The spool has reached its bound: nothing is committed but what would else be lost. */
    isFull: () => bytes >= options.bytesMax,
    /**
     * Commits posts together with the baseline that they lead to.
     * @throws the error of the file system; then neither is committed, or both will be at the start.
     */
    commit(posts: readonly IngestPost[], baseline: Baseline): void {
      // A disk that was full may have left the last commit half-way.
      if (journal.posts.length > 0) unpack();
      const sequence = journal.sequence + 1;
      const spooled = posts.map((post, index) => ({
        name: `${String(sequence).padStart(12, '0')}-${String(index).padStart(4, '0')}.json`,
        path: post.path,
        idempotencyKey: randomUUID(),
        body: JSON.stringify(post.body),
      }));
      const next = { sequence, baseline, posts: spooled };
      writeDurable(journalFile, JSON.stringify(next));
      journal = next;
      unpack();
    },
    /** The oldest post, once there is one; undefined where `signal` ends the wait. */
    async next(signal: AbortSignal): Promise<SpooledPost | undefined> {
      while (!signal.aborted) {
        const file = waiting[0]?.name;
        if (file !== undefined) {
          return JSON.parse(readFileSync(path.join(spoolDir, file), 'utf8')) as SpooledPost;
        }
        await new Promise<void>((resolve) => {
          wake = () => {
            signal.removeEventListener('abort', resolveOnce);
            resolve();
          };
          const resolveOnce = wake;
          signal.addEventListener('abort', resolveOnce);
        });
      }
      return undefined;
    },
    /** Core has acknowledged the oldest post. */
    drop(post: SpooledPost): void {
      forget(post.name);
      rmSync(path.join(spoolDir, post.name));
      syncFolder(spoolDir);
    },
    /** Core will never take the oldest post: it is kept aside, with the answer, for an operator. */
    setAside(post: SpooledPost, answer: unknown): void {
      forget(post.name);
      const answerFile = path.join(refusedDir, post.name.replace(/json$/, 'answer.json'));
      writeDurable(answerFile, JSON.stringify(answer));
      renameSync(path.join(spoolDir, post.name), path.join(refusedDir, post.name));
      const names = readdirSync(refusedDir).sort();
      for (const name of names.slice(0, Math.max(0, names.length - 2 * refusedMax))) {
        rmSync(path.join(refusedDir, name));
      }
      syncFolder(refusedDir);
      syncFolder(spoolDir);
    },
  };
}
