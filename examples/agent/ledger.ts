import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { readJson, syncFolder, writeDurable } from '../../src/durable-file.ts';
import type { IngestPost, PostIdentity } from './client.ts';

/** The proxy's counters that posts already cover. */
export interface Baseline {
  /** The process that counted. A new process counts from zero. */
  proxyId: string;
  counters: Record<string, number>;
  /** When the counters of `<userId> <protocol>` last moved, in ms since the epoch. */
  online: Record<string, number>;
}

/** A post as its file in `spool/` has it. Every attempt sends the same bytes of `body`. */
export interface StoredPost {
  name: string;
  path: IngestPost['path'];
  /** Core recognises a repeat by it, after any time. */
  identity: PostIdentity;
  body: string;
}

interface Journal {
  /** Number of the last commit. */
  sequence: number;
  /** The stream of the posts that this agent numbers, and the greatest number. */
  stream: string;
  greatest: number;
  baseline: Baseline;
  /** Committed, but perhaps not yet written as files. */
  posts: StoredPost[];
}

interface Folders {
  journal: string;
  spool: string;
  refused: string;
}

interface State {
  folders: Folders;
  journal: Journal;
  /** Files of stored posts, which Core has not acknowledged, oldest first. */
  waiting: { name: string; bytes: number }[];
  bytes: number;
  /** Wakes whoever waits for the next post. */
  wake: (() => void) | undefined;
}

const refusedMax = 1_000;
const noBaseline: Baseline = { proxyId: '', counters: {}, online: {} };

export type Ledger = ReturnType<typeof openLedger>;

/**
 * What the node has counted and Core has not yet acknowledged: `journal.json`, and the folder `spool/` with
 * one file a post. One atomic write of the journal commits new posts together with the baseline that they
 * lead to. Only then does the agent write the posts as files. After a crash before the commit the old
 * baseline is there, and the next posts count the bytes again. After a crash between commit and files, the
 * next start writes the files.
 */
export function openLedger(dataDir: string, options: { bytesMax: number }) {
  const state = openState(dataDir);
  if (state.journal.posts.length > 0) writePosts(state);
  return {
    baseline: () => state.journal.baseline,
    size: () => ({ posts: state.waiting.length, bytes: state.bytes }),
    /**
     * Whether the stored posts have reached their bound. Then only what would otherwise be lost is
     * committed.
     */
    isFull: () => state.bytes >= options.bytesMax,
    /**
     * Commits posts together with the baseline that they lead to. Without posts it writes nothing.
     * @throws the error of the file system. Then neither is committed, or the next start completes both.
     */
    commit: (posts: readonly IngestPost[], baseline: Baseline): void => {
      if (posts.length > 0) commit(state, posts, baseline);
      // Nothing has been counted since, so a crash that forgets this baseline costs nothing.
      else state.journal = { ...state.journal, baseline };
    },
    /** The oldest post, as soon as there is one; undefined if `signal` ends the wait. */
    next: (signal: AbortSignal): Promise<StoredPost | undefined> => nextPost(state, signal),
    /**
     * Core has another body under the number of the oldest post, as a rule because the disk of this machine
     * was restored: what waits is numbered anew, in a new stream.
     */
    renumber: (): void => renumber(state),
    /** Core has acknowledged the oldest post. */
    drop(post: StoredPost): void {
      forget(state, post.name);
      rmSync(path.join(state.folders.spool, post.name));
      syncFolder(state.folders.spool);
    },
    /** Core will never take the oldest post: it is kept for an operator, with Core's answer. */
    setAside(post: StoredPost, answer: unknown): void {
      forget(state, post.name);
      setAside(state.folders, post.name, answer);
    },
  };
}

function openState(dataDir: string): State {
  const folders: Folders = {
    journal: path.join(dataDir, 'journal.json'),
    spool: path.join(dataDir, 'spool'),
    refused: path.join(dataDir, 'refused'),
  };
  for (const folder of [folders.spool, folders.refused]) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }
  const journal: Journal = {
    ...{ sequence: 0, baseline: noBaseline, posts: [] },
    // The journal of an earlier agent has no stream. Its first commit writes one.
    ...{ stream: randomUUID(), greatest: 0 },
    ...readJson<Journal>(folders.journal),
  };
  for (const name of readdirSync(folders.spool)) {
    // An agent that was killed while it wrote a file leaves it under another name. The journal has its post.
    if (name.endsWith('.tmp')) rmSync(path.join(folders.spool, name));
  }
  const committed = new Set(journal.posts.map((post) => post.name));
  // A name begins with the number of its commit, so the order of names is the order of time.
  const waiting = readdirSync(folders.spool)
    .filter((name) => name.endsWith('.json') && !committed.has(name))
    .sort()
    .map((name) => ({ name, bytes: statSync(path.join(folders.spool, name)).size }));
  const bytes = waiting.reduce((sum, file) => sum + file.bytes, 0);
  return { folders, journal, waiting, bytes, wake: undefined };
}

function commit(state: State, posts: readonly IngestPost[], baseline: Baseline): void {
  // If the disk was full, the files of the last commit may be missing.
  if (state.journal.posts.length > 0) writePosts(state);
  const { stream, greatest } = state.journal;
  const sequence = state.journal.sequence + 1;
  const stored = posts.map((post, index) => ({
    name: `${String(sequence).padStart(12, '0')}-${String(index).padStart(4, '0')}.json`,
    path: post.path,
    identity: { stream, number: greatest + index + 1 },
    body: JSON.stringify(post.body),
  }));
  const next: Journal = {
    ...{ sequence, stream, greatest: greatest + stored.length },
    ...{ baseline, posts: stored },
  };
  writeDurable(state.folders.journal, JSON.stringify(next));
  state.journal = next;
  writePosts(state);
}

/**
 * Writes the journal's posts as files and takes them out of the journal. Nothing is sent before all of
 * them are written, so repeating this does no harm.
 */
function writePosts(state: State): void {
  const { folders, journal } = state;
  const files = journal.posts.map((post) => {
    const content = JSON.stringify(post);
    writeDurable(path.join(folders.spool, post.name), content);
    return { name: post.name, bytes: Buffer.byteLength(content) };
  });
  const emptied: Journal = { ...journal, posts: [] };
  writeDurable(folders.journal, JSON.stringify(emptied));
  state.journal = emptied;
  state.waiting.push(...files);
  for (const file of files) state.bytes += file.bytes;
  state.wake?.();
}

/**
 * The oldest post has a number, so all others have one, too. The journal has the new stream before a file has
 * it, so that no number of it is given twice. A crash between two files leaves the later ones in the old
 * stream, where Core judges them again.
 */
function renumber(state: State): void {
  const { folders, waiting } = state;
  const stream = randomUUID();
  const next: Journal = { ...state.journal, stream, greatest: waiting.length };
  writeDurable(folders.journal, JSON.stringify(next));
  state.journal = next;
  for (const [index, file] of waiting.entries()) {
    const post = readPost(folders, file.name);
    const content = JSON.stringify({ ...post, identity: { stream, number: index + 1 } });
    writeDurable(path.join(folders.spool, file.name), content);
    state.bytes += Buffer.byteLength(content) - file.bytes;
    file.bytes = Buffer.byteLength(content);
  }
}

function readPost({ spool }: Folders, name: string): StoredPost {
  const post = JSON.parse(readFileSync(path.join(spool, name), 'utf8'));
  // An earlier agent gave its posts keys.
  return { identity: { key: post.idempotencyKey }, ...post } as StoredPost;
}

async function nextPost(state: State, signal: AbortSignal): Promise<StoredPost | undefined> {
  while (!signal.aborted) {
    const file = state.waiting[0]?.name;
    if (file !== undefined) return readPost(state.folders, file);
    await new Promise<void>((resolve) => {
      const wakeOnce = (): void => {
        signal.removeEventListener('abort', wakeOnce);
        resolve();
      };
      state.wake = wakeOnce;
      signal.addEventListener('abort', wakeOnce);
    });
  }
  return undefined;
}

function forget(state: State, name: string): void {
  if (state.waiting[0]?.name !== name) throw new Error(`${name} is not the oldest stored post`);
  state.bytes -= state.waiting.shift()?.bytes ?? 0;
}

/** Moves a post and Core's answer to `refused/`, and removes the oldest there if there are many. */
function setAside({ spool, refused }: Folders, name: string, answer: unknown): void {
  const answerFile = path.join(refused, name.replace(/json$/, 'answer.json'));
  writeDurable(answerFile, JSON.stringify(answer));
  renameSync(path.join(spool, name), path.join(refused, name));
  const names = readdirSync(refused).sort();
  for (const oldest of names.slice(0, Math.max(0, names.length - 2 * refusedMax))) {
    rmSync(path.join(refused, oldest));
  }
  syncFolder(refused);
  syncFolder(spool);
}
