import { stat } from 'node:fs/promises';
import { clickhouseFault } from './fault.ts';

/**
 * Bounds on the files that results lie in until they are sent. The engine bounds what a result takes in its
 * memory, where a text that comes in each row counts once: 100 million rows of a kilobyte each were 100 GB
 * on the disk, which Core's stores need.
 */
export interface Results {
  /** @throws 202 if results that nobody has taken yet fill their bound. Core is never refused. */
  requireRoom(account: 'core' | 'analyst'): void;
  /**
   * Watches a file that a query writes, and calls `cancel` once it is over the bound.
   * `stop` ends that and returns the fault of such a file.
   */
  watch(file: string, cancel: () => void): { stop(): Error | undefined };
  /** Counts a result that is to be sent, until the function that it returns is called. */
  hold(bytes: number): () => void;
}

/** A disk writes some 100 MB in that time. */
const lookMs = 100;

/** `bytesMax` is the bound of one result; twice that is the bound of all that wait to be taken. */
export function createResults(bytesMax: number): Results {
  let heldBytes = 0;
  return {
    requireRoom: (account) => {
      if (account === 'core' || heldBytes < 2 * bytesMax) return;
      throw clickhouseFault(
        202,
        'TOO_MANY_SIMULTANEOUS_QUERIES',
        'Too many bytes of results wait to be read by their clients.',
        { retryAfterSeconds: 5 },
      );
    },
    watch: (file, cancel) => {
      let fault: Error | undefined;
      const look = async (): Promise<void> => {
        // Until the query begins to write there is no file.
        const bytes = await stat(file).then(
          ({ size }) => size,
          () => 0,
        );
        if (bytes <= bytesMax || fault !== undefined) return;
        fault = tooLargeFault(bytesMax);
        cancel();
      };
      const timer = setInterval(() => void look(), lookMs);
      return {
        stop: () => {
          clearInterval(timer);
          return fault;
        },
      };
    },
    hold: (bytes) => {
      heldBytes += bytes;
      let isHeld = true;
      return () => {
        if (isHeld) heldBytes -= bytes;
        isHeld = false;
      };
    },
  };
}

function tooLargeFault(bytesMax: number): Error {
  return clickhouseFault(
    396,
    'TOO_MANY_ROWS_OR_BYTES',
    `Limit for result exceeded, max bytes: ${bytesMax} as it is written`,
    { status: 400 },
  );
}
