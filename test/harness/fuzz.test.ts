import t from 'tap';
import { freshStores } from '../support/stores.ts';
import { runFuzz } from './fuzz/run.ts';

t.test(
  '3,000 damaged requests: no crash, no 500, only answers that the contract allows',
  async (t) => {
    const stores = await freshStores(t);
    const result = await runFuzz({
      environment: stores.environment,
      seed: 20_261_125,
      from: 0,
      cases: 3_000,
      connections: 32,
    });
    t.same(result.violations, []);
    t.equal(result.done, 3_000);
    for (const status of ['200', '304', '400', '401', '403', '404', '405', '409', '413', '415']) {
      t.ok(result.met.has(status), `some case is answered with ${status}`);
    }
  },
);
