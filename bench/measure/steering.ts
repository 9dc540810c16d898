import { perSecondOf, type Standing } from './spool.ts';
import { mean } from './statistics.ts';

/** What tells a sustained run's sender how fast to send. */
interface Steering {
  /** Entries a second to send now. */
  rate: () => number;
  /** To be told once a second. */
  see(standing: Standing): void;
  /** Whether the loader has fallen behind at a higher rate, and keeps up now. */
  isFound(): boolean;
  /** From here on the rate follows the loader; not before it has been seen for some seconds. */
  hold(): void;
}

/**
 * What may lie in the spool unread, in seconds of sending: the loader looks at a stream once a
 * second, so that much is there when it is well. From there on more is sent, up to where twice as
 * much gathers; past that the loader falls behind.
 */
const unreadSecondsLow = 1.3;
const unreadSecondsHigh = 2.5;
const unreadSecondsHeld = (unreadSecondsLow + unreadSecondsHigh) / 2;
const rise = 1.03;
const fall = 0.94;
/**
 * Asked for at most this many times what was loaded in the last seconds: the loader is behind by then,
 * or the sender reaches no more, and what is asked for beyond that only has to be loaded afterwards.
 */
const loadedShareMax = 1.25;
/** The same once the rate is held, where it has long been found. */
const loadedShareMaxHeld = 1.1;
const loadedShareMinHeld = 0.9;
/** Segments are sealed in lumps, so what is unread is taken over so many seconds. */
const recentMax = 4;
const loadedSeconds = 10;
/** What is unread too much or too little, once the rate is held, is made good in so many seconds. */
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
 * First looks for the rate at which the loader just keeps up: each second it is raised or lowered by what
 * lies unread in the spool. Once held it is what the loader did in the last seconds, a little more or
 * less by what lies unread, so that this stays as it is however the machine's speed changes.
 */
export function createSteering(firstPerSecond: number): Steering {
  /** The last one is of now. */
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
