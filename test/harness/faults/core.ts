import { startApi } from '../../../src/app/api.ts';
import { startWorker } from '../../../src/app/worker.ts';
import { readConfig } from '../../../src/config.ts';
import { toCoreError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/log.ts';
import { withStoredSecrets } from '../../../src/secrets.ts';
import { apiSeams, type Removal, removals, workerSeams } from './removals.ts';

/**
 * `core.js serve|work <removal>`: Core's api or worker without one of its protections. Only the fault
 * suite starts it, in place of `core serve` and `core work`.
 */
async function main(role: string, removal: Removal): Promise<void> {
  const config = withStoredSecrets(readConfig(process.env));
  const log = createLogger(config.logLevel);
  const ended = new Promise<void>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('disconnect', resolve);
  });
  try {
    const running =
      role === 'serve'
        ? await startApi(config, log, Date.now, apiSeams(removal))
        : await startWorker(config, log, workerSeams(removal));
    process.send?.({ ready: true });
    await ended;
    await running.close();
  } catch (thrown) {
    const { code, message } = toCoreError(thrown);
    log.error({ err: thrown }, 'could not start');
    process.send?.({ failed: { code, message } });
    process.exitCode = 1;
  } finally {
    if (process.connected) process.disconnect();
  }
}

const [role = '', removal] = process.argv.slice(2);
await main(role, removals.find((known) => known === removal) ?? 'aof');
