import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The proxy's counters by name: `user>>>UUID>>>traffic>>>uplink` and the like. */
export type Counters = Record<string, number>;

const timeoutMs = 5_000;
const outputBytesMax = 67_108_864;
/** v2ctl reads an answer of up to 4 MiB, which is some 20,000 users. */
const clientsMax = 10_000;
const hexDigits = [...'0123456789abcdef'];

/**
 * Reads the counters of users and outbounds through `v2ctl api`. It does not reset them, because an
 * agent that crashes after a reset would lose what it read.
 * @param clients how many the configuration has. Many are read in parts.
 * @throws if the proxy does not answer.
 */
export async function readCounters(options: {
  program: string;
  apiPort: number;
  clients: number;
}): Promise<Counters> {
  const users =
    options.clients > clientsMax ? hexDigits.map((digit) => `user>>>${digit}`) : ['user>>>'];
  const counters: Counters = {};
  for (const pattern of [...users, 'outbound>>>']) {
    const { stdout } = await run(
      options.program,
      [
        'api',
        `--server=127.0.0.1:${options.apiPort}`,
        'StatsService.QueryStats',
        `pattern: "${pattern}" reset: false`,
      ],
      { timeout: timeoutMs, maxBuffer: outputBytesMax },
    );
    Object.assign(counters, parseCounters(stdout));
  }
  return counters;
}

/** Reads protobuf's text format, which leaves out a value of zero. */
export function parseCounters(text: string): Counters {
  const counters: Counters = {};
  for (const [, name, value] of text.matchAll(/name: "([^"]*)"(?:\s+value: (\d+))?/g)) {
    if (name !== undefined && value !== undefined) counters[name] = Number(value);
  }
  return counters;
}
