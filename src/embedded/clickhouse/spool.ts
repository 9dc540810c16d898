import { randomUUID } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { clickhouseFault } from './fault.ts';

/**
 * Files through which rows enter the engine and results leave it. They need no fsync: an INSERT is
 * acknowledged for the part that the engine wrote, not for its file. What a killed process left is
 * removed by `clear` at the next start.
 */
export interface Spool {
  /** A path that nothing uses yet, within the folder. */
  path(): string;
  /** Writes a file and returns its path and size; a failure half-way removes it. */
  write(chunks: AsyncIterable<Buffer>): Promise<SpooledFile>;
  /** Removes a file, there or not. */
  remove(file: string): Promise<void>;
  /** Removes all files. Only for who holds the engine's lock. */
  clear(): void;
}

export interface SpooledFile {
  path: string;
  bytes: number;
  /** Removes the file and gives its bytes back to the bound. */
  release(): Promise<void>;
}

/**
 * A socket gives 64 KiB at a time, and each write costs a turn of the thread pool and of the event
 * loop: so a write takes several chunks, as many as one call may take (IOV_MAX) where they are small.
 */
const writeBytesMin = 1024 * 1024;
const writeChunksMax = 1_024;

/** A spool in a folder, with a bound on the bytes that wait in written files at once. */
export function openSpool(folder: string, bytesMax: number): Spool {
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
      const release = async (): Promise<void> => {
        bytesHeld -= bytes;
        bytes = 0;
        await remove(file);
      };
      let handle: FileHandle | undefined;
      try {
        handle = await open(file, 'wx', 0o600);
        let gathered: Buffer[] = [];
        let gatheredBytes = 0;
        for await (const chunk of chunks) {
          if (bytesHeld + chunk.length > bytesMax) throw spoolFullFault();
          bytesHeld += chunk.length;
          bytes += chunk.length;
          gathered.push(chunk);
          gatheredBytes += chunk.length;
          if (gatheredBytes < writeBytesMin && gathered.length < writeChunksMax) continue;
          await writeAll(handle, gathered, gatheredBytes);
          gathered = [];
          gatheredBytes = 0;
        }
        await writeAll(handle, gathered, gatheredBytes);
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

/** Appends chunks in one call where the system takes them all, which it need not. */
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

function spoolFullFault(): Error {
  return clickhouseFault(
    202,
    'TOO_MANY_SIMULTANEOUS_QUERIES',
    'Too many bytes wait to be inserted already.',
    { retryAfterSeconds: 1 },
  );
}
