import { Lifecycle } from '../../src/lifecycle.ts';
import { run } from '../limits.ts';
import { startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured } from './metric.ts';

const subscriptionsWanted = 100;
const subscriptionsWantedQuick = 10;
/** What docs/agents.md promises. */
const needSyncMsMax = 2_000;

/**
 * How soon a limit has effect, on a Core that does nothing else: see bench/limits.ts. A limit that
 * has none within half a minute ends the bench with an error.
 */
export async function measureLimits(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  const subscriptions = options.quick ? subscriptionsWantedQuick : subscriptionsWanted;
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: true });
    options.say(`taking ${subscriptions} subscriptions over their limits`);
    const report = await run(core.pool, { url: core.url, subscriptions, signal: options.signal });
    const parts = [
      ['200 of the crossing post to needSync', report.needSyncMs],
      ['200 of the crossing post to a config without the link', report.linkGoneMs],
    ] as const;
    for (const [name, values] of parts) {
      for (const [share, value] of Object.entries(values)) {
        const base = { bench: 'limits', unit: 'ms', better: 'lower' } as const;
        const promised = values === report.needSyncMs && share === 'max';
        const target = promised ? { target: { max: needSyncMsMax } } : {};
        measured.metrics.push({ ...base, name: `${name}, ${share}`, value, ...target });
      }
    }
  } finally {
    await lifecycle.close();
  }
  return measured;
}
