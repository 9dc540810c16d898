import { constants } from 'node:fs';
import { isatty } from 'node:tty';
import { readIfThere } from './durable-file.ts';

/**
 * Closes everything that was opened, last in first out, also if a start fails half-way. Call `use` right
 * after something was opened, and `close` in a finally.
 */
export class Lifecycle {
  readonly #releasers: { name: string; release: () => Promise<void> | void }[] = [];
  #closing: Promise<void> | undefined;

  /** Registers how to close something. */
  use(name: string, release: () => Promise<void> | void): void {
    this.#releasers.push({ name, release });
  }

  /**
   * Closes everything in reverse order. A failure does not stop the others; all failures are thrown at the
   * end as one AggregateError. Repeated calls share one run.
   */
  close(): Promise<void> {
    this.#closing ??= this.#run();
    return this.#closing;
  }

  async #run(): Promise<void> {
    const failures: unknown[] = [];
    for (let next = this.#releasers.pop(); next !== undefined; next = this.#releasers.pop()) {
      try {
        await next.release();
      } catch (cause) {
        failures.push(new Error(`Could not close ${next.name}`, { cause }));
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, 'Not everything closed cleanly');
  }
}

/** Under npm, Ctrl-C delivers SIGINT twice: the terminal sends it and npm forwards it. */
const doubledSignalMs = 250;

/**
 * Resolves at the first SIGTERM, SIGINT or SIGHUP; a terminal that is closed sends SIGHUP. A second signal
 * ends the process at once: its sender does not want to wait, and a crash loses nothing that was
 * acknowledged. A second SIGHUP is ignored, because shell and kernel each send one. Under nohup(1) every
 * SIGHUP is ignored.
 */
export function untilSignalled(): Promise<NodeJS.Signals> {
  const staysAfterHangup = isUnderNohup();
  return new Promise((resolve) => {
    let signalledAtMs: number | undefined;
    const onSignal = (signal: NodeJS.Signals): void => {
      if (signal === 'SIGHUP' && (staysAfterHangup || signalledAtMs !== undefined)) return;
      const nowMs = performance.now();
      if (signalledAtMs === undefined) {
        signalledAtMs = nowMs;
        resolve(signal);
      } else if (nowMs - signalledAtMs > doubledSignalMs) {
        process.exit(1);
      }
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    process.on('SIGHUP', onSignal);
  });
}

/**
 * nohup(1) makes its program ignore SIGHUP, but Node undoes that when it starts. One trace of nohup is left:
 * if stdin was a terminal, nohup replaced it by /dev/null, opened for writing only. If stdin was not a
 * terminal, there is none that could be closed.
 */
function isUnderNohup(): boolean {
  if ([0, 1, 2].some((descriptor) => isatty(descriptor))) return false;
  const flags = /^flags:\s*(\d+)/m.exec(readIfThere('/proc/self/fdinfo/0') ?? '')?.[1];
  const accessMode = Number.parseInt(flags ?? '0', 8) & (constants.O_WRONLY | constants.O_RDWR);
  return accessMode === constants.O_WRONLY;
}
