import { perSecondOf, type Standing } from './standing.ts';
import { mean } from './statistics.ts';

/** Decides how fast a sustained run's sender sends. */
interface Steering {
  /** Entries a second to send now. */
  rate: () => number;
  /** Must be called once a second. */
  see(standing: Standing): void;
  /** Whether the loader has fallen behind once, and keeps up again. */
  isFound(): boolean;
  /** From now on the rate follows the loader. `see` must have been called for some seconds. */
  hold(): void;
}

/**
 * Bounds of the unread rows in the spool, in seconds of sending. The loader reads a stream once a
 * second, so about one second's worth is unread if it keeps up. Under the low bound the rate rises.
 * Over the high bound the loader has fallen behind, and the rate falls.
 */
const unreadSecondsLow = 1.3;
const unreadSecondsHigh = 2.5;
const unreadSecondsHeld = (unreadSecondsLow + unreadSecondsHigh) / 2;
const rise = 1.03;
const fall = 0.94;
/**
 * The rate is at most this many times what was loaded in the last seconds. If the loader does less, then it
 * is behind, or the sender does not reach the rate. More rows would only have to be loaded later.
 */
const loadedShareMax = 1.25;
/** Bounds of the same share once the rate is held. */
const loadedShareMaxHeld = 1.1;
const loadedShareMinHeld = 0.9;
/** Segments are sealed in lumps, so the unread rows are averaged over this many samples. */
const recentMax = 4;
const loadedSeconds = 10;
/** Once the rate is held, it corrects the unread rows within this many seconds. */
const correctSeconds = 10;

export function steadySteering(perSecond: number): Steering {
  return {
    rate: () => perSecond,
    see: () => undefined,
    isFound: () => true,
    hold: () => undefined,
  };
}

/**
 * First looks for the rate at which the loader just keeps up: each second the rate rises or falls by
 * the unread rows in the spool. Once held, the rate is what the loader did in the last seconds,
 * corrected by the unread rows. So these stay the same even if the machine's speed changes.
 */
export function createSteering(firstPerSecond: number): Steering {
  /** Oldest first. */
  const seen: Standing[] = [];
  let perSecond = firstPerSecond;
  let fellBehind = false;
  let isHeld = false;
  const unreadRows = (): number => mean(seen.slice(-recentMax).map(unreadOf));
  const unreadSeconds = (): number => unreadRows() / perSecond;
  const loadedPerSecond = (): number => perSecondOf(seen.slice(-loadedSeconds - 1), 'sealedRows');
  const follow = (): void => {
    const loaded = loadedPerSecond();
    const missing = unreadSecondsHeld * loaded - unreadRows();
    const wanted = loaded + missing / correctSeconds;
    perSecond = Math.max(
      loadedShareMinHeld * loaded,
      Math.min(loadedShareMaxHeld * loaded, wanted),
    );
  };
  return {
    rate: () => perSecond,
    see(standing) {
      seen.push(standing);
      if (isHeld) return follow();
      if (unreadSeconds() > unreadSecondsHigh) {
        fellBehind = true;
        perSecond *= fall;
      } else if (unreadSeconds() < unreadSecondsLow) perSecond *= rise;
      if (seen.length <= loadedSeconds) return;
      const most = Math.max(loadedPerSecond() * loadedShareMax, firstPerSecond / 5);
      perSecond = Math.min(perSecond, most);
    },
    isFound: () => fellBehind && unreadSeconds() <= unreadSecondsHigh,
    hold() {
      isHeld = true;
    },
  };
}

function unreadOf({ appendedRows, sealedRows }: Standing): number {
  return appendedRows - sealedRows;
}
