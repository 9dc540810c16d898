import { shapes, storageTable } from '../storage/table.ts';
import { type BenchOptions, emptyMeasured, type Measured } from './metric.ts';

const size = { rows: 1_000_000, insertRows: 250_000 };
const sizeQuick = { rows: 100_000, insertRows: 50_000 };

/**
 * Every way to lay `usage` out that bench/storage/variants.ts names, on the fleet simulator's rows,
 * in a ClickHouse of this process. Each variant is checked to hold all rows.
 */
export async function measureSchema(options: BenchOptions): Promise<Measured> {
  const measured = emptyMeasured();
  options.say('inserting and merging a table for each variant');
  const { signal } = options;
  const wanted = options.quick ? sizeQuick : size;
  const table = await storageTable(shapes.fleet, { ...wanted, signal });
  for (const { name, bytesPerRow, insertRowsPerSecond } of table.measured) {
    measured.metrics.push(
      {
        ...{ bench: 'schema', name, value: bytesPerRow },
        ...{ unit: 'bytes a row', better: 'lower' },
      },
      {
        ...{ bench: 'schema', name: `${name}: inserted`, value: insertRowsPerSecond },
        ...{ unit: 'rows/s', better: 'none' },
      },
    );
  }
  measured.texts.push(table.markdown);
  return measured;
}
