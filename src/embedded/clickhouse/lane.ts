import { clickhouseFault } from './fault.ts';

/** Lets a bounded number of statements run at once, and a bounded number wait in their order. */
export interface Lane {
  /** Waits for a place and resolves to a function that gives it back. An abort ends the wait. */
  enter(signal: AbortSignal): Promise<() => void>;
  /** Refuses everything that waits and everything that comes later. */
  stop(): void;
  /** Resolves once nothing runs. */
  idle(): Promise<void>;
}

interface Waiter {
  admit: () => void;
  refuse: (cause: Error) => void;
}

/** A lane of `runningMax` places and a queue of `waitingMax`; past that the answer is a 503. */
export function createLane(limits: { runningMax: number; waitingMax: number }): Lane {
  const waiters = new Set<Waiter>();
  const whenIdle: (() => void)[] = [];
  let running = 0;
  let stopped = false;

  const leave = (): void => {
    running -= 1;
    const next = waiters.values().next().value;
    if (next !== undefined) {
      waiters.delete(next);
      next.admit();
    } else if (running === 0) {
      for (const resolve of whenIdle.splice(0)) resolve();
    }
  };

  const place = (): (() => void) => {
    running += 1;
    let left = false;
    return () => {
      if (left) return;
      left = true;
      leave();
    };
  };

  return {
    enter: (signal) => {
      if (stopped) return Promise.reject(stoppingFault());
      if (signal.aborted) return Promise.reject(goneFault());
      if (running < limits.runningMax) return Promise.resolve(place());
      if (waiters.size >= limits.waitingMax) return Promise.reject(fullFault());
      return new Promise((resolve, reject) => {
        const onAbort = (): void => {
          if (waiters.delete(waiter)) reject(goneFault());
        };
        const waiter: Waiter = {
          admit: () => {
            signal.removeEventListener('abort', onAbort);
            resolve(place());
          },
          refuse: (cause) => {
            signal.removeEventListener('abort', onAbort);
            reject(cause);
          },
        };
        signal.addEventListener('abort', onAbort, { once: true });
        waiters.add(waiter);
      });
    },
    stop: () => {
      stopped = true;
      for (const waiter of waiters) waiter.refuse(stoppingFault());
      waiters.clear();
    },
    idle: () =>
      running === 0 ? Promise.resolve() : new Promise((resolve) => whenIdle.push(resolve)),
  };
}

/** A 503, since the same request may succeed after a restart. */
export function stoppingFault(): Error {
  return clickhouseFault(236, 'ABORTED', 'The server is stopping.', { retryAfterSeconds: 1 });
}

/** Nobody reads it; it ends the work for a client that went away. */
export function goneFault(): Error {
  return clickhouseFault(394, 'QUERY_WAS_CANCELLED', 'The client closed the connection.');
}

function fullFault(): Error {
  return clickhouseFault(
    202,
    'TOO_MANY_SIMULTANEOUS_QUERIES',
    'Too many queries wait for the embedded server already.',
    { retryAfterSeconds: 1 },
  );
}
