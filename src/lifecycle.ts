/**
 * Closes what was opened, last in first out, also when start-up fails half-way: `use` a releaser
 * right after the thing exists, and `close` in a finally.
 */
export class Lifecycle {
  readonly #releasers: { name: string; release: () => Promise<void> | void }[] = [];
  #closing: Promise<void> | undefined;

  /** Registers how to give something back. */
  use(name: string, release: () => Promise<void> | void): void {
    this.#releasers.push({ name, release });
  }

  /**
   * Releases everything in reverse order. A releaser that throws does not stop the others; what
   * failed is thrown at the end as an AggregateError. Repeated calls share one run.
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

/** Ctrl-C under npm delivers SIGINT twice, from the terminal and forwarded by npm. */
const doubledSignalMs = 250;

/**
 * Resolves at the first SIGTERM or SIGINT. A second signal ends the process at once: whoever sends
 * it does not want to wait, and a crash loses nothing that was acknowledged.
 */
export function untilSignalled(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let signalledAtMs: number | undefined;
    const onSignal = (signal: NodeJS.Signals): void => {
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
  });
}
