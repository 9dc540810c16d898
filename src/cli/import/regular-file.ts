import { stat } from 'node:fs/promises';
import { CoreError } from '../../errors.ts';

/** Bytes of a file to import. 200,000 users of a panel have about 150 MB. */
export const importBytesMax = 4_294_967_296;

/**
 * An import reads its file more than once and to its end, which a pipe, a terminal or a device does not allow:
 * reading one would wait or go on for ever.
 * @param isInputTaken whether the command takes standard input in place of a file.
 * @throws CoreError INVALID_ARGUMENT if it is no regular file, is too large, or cannot be looked at.
 */
export async function requireRegularFile(file: string, isInputTaken: boolean): Promise<void> {
  let found: Awaited<ReturnType<typeof stat>>;
  try {
    found = await stat(file);
  } catch (cause) {
    const message = `${file} cannot be read: ${(cause as Error).message}`;
    throw new CoreError('INVALID_ARGUMENT', message, { cause });
  }
  if (!found.isFile()) {
    const instead = isInputTaken ? 'or give - and send it to standard input' : 'and give that';
    const message = `${file} is a ${kindOf(found)} and no file: copy what it holds to a file, ${instead}`;
    throw new CoreError('INVALID_ARGUMENT', message);
  }
  if (found.size > importBytesMax) {
    throw new CoreError('INVALID_ARGUMENT', `${file} has over ${importBytesMax} bytes`);
  }
}

function kindOf(found: { isDirectory(): boolean; isFIFO(): boolean; isSocket(): boolean }): string {
  if (found.isDirectory()) return 'folder';
  if (found.isFIFO()) return 'pipe';
  return found.isSocket() ? 'socket' : 'device';
}
