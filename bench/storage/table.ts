import { type Measured, measureVariants } from './measure.ts';
import type { Shape } from './rows.ts';
import { variants } from './variants.ts';

/** The fleet simulator's rows; all of a large fleet for some minutes; a part of it for long. */
export const shapes = {
  fleet: {
    ...{ name: 'fleet', nodes: 50, subscriptions: 2_000, nodesPerSubscription: 2 },
    ...{ postSeconds: 5, idStep: 1, asFleet: true },
  },
  wide: {
    ...{ name: 'wide', nodes: 10_000, subscriptions: 200_000, nodesPerSubscription: 1 },
    ...{ postSeconds: 60, idStep: 1, asFleet: false },
  },
  deep: {
    ...{ name: 'deep', nodes: 100, subscriptions: 2_000, nodesPerSubscription: 1 },
    ...{ postSeconds: 60, idStep: 100, asFleet: false },
  },
} satisfies Record<string, Shape>;

/** Measures every variant on a shape's rows, and gives what was measured and a Markdown table. */
export async function storageTable(
  shape: Shape,
  options: { rows: number; insertRows: number; signal: AbortSignal },
): Promise<{ measured: Measured[]; markdown: string }> {
  const measured = await measureVariants(shape, variants, options);
  const lines = measured.map(
    (one) =>
      `| ${one.name} | ${one.bytesPerRow.toFixed(2)} | ${(one.insertRowsPerSecond / 1e6).toFixed(2)} | ` +
      `${one.insertCpuSeconds.toFixed(2)} | ${one.mergeCpuSeconds.toFixed(2)} |`,
  );
  const head = '| Variant | Bytes a row | M rows/s | CPU s/M rows, insert | merge |';
  return { measured, markdown: [head, '| --- | --- | --- | --- | --- |', ...lines].join('\n') };
}
