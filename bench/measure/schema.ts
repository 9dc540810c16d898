import { tableText } from '../../src/cli/table.ts';
import { type BenchOptions, emptyMeasured, type Measured } from './metric.ts';
import { measureVariants, type VariantCost } from './schema/inserts.ts';
import type { Shape } from './schema/rows.ts';
import { variants } from './schema/variants.ts';

/** The fleet simulator's rows; all of a large fleet for some minutes; a part of it for long. */
const shapes: readonly (Shape & { rows: number })[] = [
  {
    name: 'fleet',
    nodes: 50,
    subscriptions: 2_000,
    nodesPerSubscription: 2,
    postSeconds: 5,
    idStep: 1,
    asFleet: true,
    rows: 1_000_000,
  },
  {
    name: 'wide',
    nodes: 10_000,
    subscriptions: 200_000,
    nodesPerSubscription: 1,
    postSeconds: 60,
    idStep: 1,
    asFleet: false,
    rows: 3_000_000,
  },
  {
    name: 'deep',
    nodes: 100,
    subscriptions: 2_000,
    nodesPerSubscription: 1,
    postSeconds: 60,
    idStep: 100,
    asFleet: false,
    rows: 3_000_000,
  },
];
const insertRows = 250_000;
const rowsQuick = 100_000;
const insertRowsQuick = 50_000;

/**
 * What a row of `usage` costs in every table layout of schema/variants.ts, for each shape of rows, in
 * a ClickHouse of this process.
 */
export async function measureSchema(options: BenchOptions): Promise<Measured> {
  const measured = emptyMeasured();
  const { quick, signal } = options;
  for (const shape of shapes) {
    options.say(`${shape.name}: inserting and merging a table for each variant`);
    const costs = await measureVariants(shape, variants, {
      rows: quick ? rowsQuick : shape.rows,
      insertRows: quick ? insertRowsQuick : insertRows,
      signal,
    });
    for (const { name, bytesPerRow, insertRowsPerSecond } of costs) {
      const subject = `${shape.name}: ${name}`;
      measured.metrics.push(
        {
          bench: 'schema',
          name: subject,
          value: bytesPerRow,
          unit: 'bytes a row',
          better: 'lower',
        },
        {
          bench: 'schema',
          name: `${subject}: inserted`,
          value: insertRowsPerSecond,
          unit: 'rows/s',
          better: 'none',
        },
      );
    }
    measured.texts.push(costTable(shape.name, costs));
  }
  return measured;
}

function costTable(shape: string, costs: readonly VariantCost[]): string {
  const columns = [shape, 'bytes a row', 'M rows/s', 'CPU s a M rows: insert', 'merge'];
  return tableText(
    columns,
    costs.map((cost) => [
      cost.name,
      cost.bytesPerRow.toFixed(2),
      (cost.insertRowsPerSecond / 1e6).toFixed(2),
      cost.insertCpuSeconds.toFixed(2),
      cost.mergeCpuSeconds.toFixed(2),
    ]),
  );
}
