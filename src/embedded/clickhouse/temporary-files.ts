import { randomUUID } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { clickhouseFault } from './fault.ts';

/**
 * Files through which rows enter the engine and results leave it. They need no fsync: an INSERT is
 * acknowledged for the part that the engine wrote, not for its file. `clear` removes what a killed process
 * left, at the next start.
 */
export interface TemporaryFiles {
  /** A path within the folder that nothing uses yet. */
  path(): string;
  /** Writes a file and returns its path and size; a failure half-way removes it. */
  write(chunks: AsyncIterable<Buffer>): Promise<TemporaryFile>;
  /** Removes a file, if there is one. */
  remove(file: string): Promise<void>;
  /** Removes all files. Only the holder of the engine's lock may call it. */
  clear(): void;
}

export interface TemporaryFile {
  path: string;
  bytes: number;
  /** Removes the file and gives its bytes back to the bound. */
  release(): Promise<void>;
}

/**
 * A socket gives 64 KiB at a time, and each write costs a turn of the thread pool and of the event loop. So
 * one write takes several chunks, and at most as many as one call may take (IOV_MAX).
 */
const writeBytesMin = 1024 * 1024;
const writeChunksMax = 1_024;

/** Opens a folder for them. `bytesMax` bounds the bytes that wait in written files at once. */
export function openTemporaryFiles(folder: string, bytesMax: number): TemporaryFiles {
  let bytesHeld = 0;
  const remove = (file: string): Promise<void> => rm(file, { force: true });
  // No extension: the engine would take it for a compression.
  const newPath = (): string => path.join(folder, randomUUID());
  return {
    path: newPath,
    remove,
    write: async (chunks) => {
      const file = newPath();
      let bytes = 0;
      const count = (chunkBytes: number): void => {
        if (bytesHeld + chunkBytes > bytesMax) throw fullFault();
        bytesHeld += chunkBytes;
        bytes += chunkBytes;
      };
      const release = async (): Promise<void> => {
        bytesHeld -= bytes;
        bytes = 0;
        await remove(file);
      };
      let handle: FileHandle | undefined;
      try {
        handle = await open(file, 'wx', 0o600);
        await writeChunks(handle, chunks, count);
      } catch (thrown) {
        await handle?.close();
        await release();
        throw thrown;
      }
      await handle.close();
      return { path: file, bytes, release };
    },
    clear: () => {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    },
  };
}

/** Counts each chunk before it is kept, and writes many of them at once. */
async function writeChunks(
  handle: FileHandle,
  chunks: AsyncIterable<Buffer>,
  count: (chunkBytes: number) => void,
): Promise<void> {
  let gathered: Buffer[] = [];
  let gatheredBytes = 0;
  for await (const chunk of chunks) {
    count(chunk.length);
    gathered.push(chunk);
    gatheredBytes += chunk.length;
    if (gatheredBytes < writeBytesMin && gathered.length < writeChunksMax) continue;
    await writeAll(handle, gathered, gatheredBytes);
    gathered = [];
    gatheredBytes = 0;
  }
  await writeAll(handle, gathered, gatheredBytes);
}

/** Appends chunks, in one call if the system takes them all at once. */
async function writeAll(
  handle: FileHandle,
  chunks: readonly Buffer[],
  bytes: number,
): Promise<void> {
  if (bytes === 0) return;
  const { bytesWritten } = await handle.writev(chunks);
  if (bytesWritten === bytes) return;
  await handle.writeFile(Buffer.concat(chunks).subarray(bytesWritten));
}

function fullFault(): Error {
  return clickhouseFault(
    202,
    'TOO_MANY_SIMULTANEOUS_QUERIES',
    'Too many bytes wait to be inserted already.',
    { retryAfterSeconds: 1 },
  );
}
