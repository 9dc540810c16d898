import { parseArgs } from 'node:util';
import { createLogger } from '../../src/log.ts';
import { freePorts } from '../support/free-port.ts';
import { startTemporaryServers } from '../support/temporary-servers.ts';
import { fuzzCase } from './fuzz/cases.ts';
import { type FuzzResult, runFuzz } from './fuzz/run.ts';

const usage = `Usage: npm run fuzz -- [--cases 100000] [--seed 1] [--from 0] [--connections 64]
       npm run fuzz -- --cases 0                heavy requests only
       npm run fuzz -- --seed 1 --show 4711     prints a case instead of running

Sends damaged requests to an api process of its own, on embedded stores in a temporary folder. Checks
that the process answers each as the contract allows, never with a 500, that it does not end, and that
its memory does not grow. Before that it sends the heaviest requests, one at a time. None of them may
hold the process for over 20 ms of CPU time. The exit code is 1 on any violation, and each violation is
printed with the seed and the case that repeat it.
`;

/** Longest CPU time that one request may hold an api process. */
const stallMsMax = 20;
const stallsShown = 12;

process.exitCode = await main();

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      cases: { type: 'string', default: '100000' },
      seed: { type: 'string', default: '1' },
      from: { type: 'string', default: '0' },
      connections: { type: 'string', default: '64' },
      show: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const numbers = [values.cases, values.seed, values.from, values.connections, values.show ?? '0'];
  if (values.help || !numbers.every((given) => /^\d{1,9}$/.test(given))) {
    process.stdout.write(usage);
    return values.help ? 0 : 1;
  }
  const seed = Number(values.seed);
  if (values.show !== undefined) {
    const shown = fuzzCase(seed, Number(values.show), 'K'.repeat(43));
    for (const part of shown.parts) console.log(JSON.stringify(part.toString('latin1')));
    console.log(shown.asks ?? 'damaged: silence is right, too');
    return 0;
  }
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => interrupted.abort());
  }
  const result = await onTemporaryStores(interrupted.signal, (environment) =>
    runFuzz({
      environment,
      seed,
      cases: Number(values.cases),
      from: Number(values.from),
      connections: Math.max(1, Number(values.connections)),
      stallMsMax,
      signal: interrupted.signal,
      onProgress: (done, residentMb) =>
        process.stderr.write(`${done} cases, api at ${residentMb ?? '?'} MB\n`),
    }),
  );
  print(result, seed);
  return result.violations.length === 0 && !interrupted.signal.aborted ? 0 : 1;
}

async function onTemporaryStores<T>(
  signal: AbortSignal,
  run: (environment: Record<string, string>) => Promise<T>,
): Promise<T> {
  const [http, admin] = await freePorts(2);
  const servers = await startTemporaryServers('core-fuzz-', createLogger('warn'), signal);
  const { postgresUrl, redisUrl, clickhouseUrl } = servers.config.stores;
  try {
    return await run({
      CORE_PORT: String(http),
      CORE_ADMIN_PORT: String(admin),
      DATABASE_URL: postgresUrl,
      REDIS_URL: redisUrl,
      CLICKHOUSE_URL: clickhouseUrl,
    });
  } finally {
    await servers.stop();
  }
}

function print(result: FuzzResult, seed: number): void {
  const { done, seconds, met, residentMb, stalls, violations } = result;
  console.log('ms of CPU  longest turn of the api in each heavy request, worst first');
  const worst = stalls.toSorted((a, b) => b.longestTurnMs - a.longestTurnMs);
  for (const { name, longestTurnMs } of worst.slice(0, stallsShown)) {
    console.log(longestTurnMs.toFixed(1).padStart(9), '', name);
  }
  console.log('answer    count');
  for (const [what, count] of [...met].sort())
    console.log(what.padEnd(8), String(count).padStart(7));
  if (residentMb.length > 0) {
    const half = residentMb.slice(Math.floor(residentMb.length / 2));
    console.log(
      `api memory: first ${residentMb[0]} MB, second half ${Math.min(...half)} to ${Math.max(...half)} MB, last ${residentMb.at(-1)} MB`,
    );
  }
  console.log(`${done} cases in ${seconds.toFixed(1)} s: ${Math.round(done / seconds)} cases/s`);
  for (const { index, reason } of violations) {
    const repeat = index === undefined ? '' : `--seed ${seed} --from ${index} --cases 1: `;
    console.log(`violation: ${repeat}${reason}`);
  }
  console.log(violations.length === 0 ? 'fuzz: OK' : `fuzz: ${violations.length} violations`);
}
