import t from 'tap';
import { requireChdb } from '../../../src/embedded/clickhouse/chdb-binary.ts';

t.test(
  'without an embedded ClickHouse for the system, the error names the setting that helps',
  async (t) => {
    requireChdb();
    t.throws(() => requireChdb('linux', 'riscv64'), {
      code: 'EMBEDDED_SERVER_FAILED',
      message: /no embedded ClickHouse for linux riscv64 \(@chdb\/.*CLICKHOUSE_URL/,
    });
  },
);
