import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The proxy's counters by name: `user>>>UUID>>>traffic>>>uplink` and the like. */
export type Counters = Record<string, number>;

const timeoutMs = 5_000;
const outputBytesMax = 67_108_864;
/** v2ctl takes an answer of up to 4 MiB, some 20,000 users. */
const clientsMax = 10_000;
const hexDigits = [...'0123456789abcdef'];

/**
 * Reads the counters of users and outbounds through `v2ctl api`, without resetting them: whoever
 * resets and then crashes has lost what was read.
 * @param clients how many there are in the configuration; many are asked for in parts.
 * @throws where the proxy does not answer.
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

/** v2ctl prints protobuf's text format, in which a value of zero is left out. */
export function parseCounters(text: string): Counters {
  const counters: Counters = {};
  for (const [, name, value] of text.matchAll(/name: "([^"]*)"(?:\s+value: (\d+))?/g)) {
    if (name !== undefined && value !== undefined) counters[name] = Number(value);
  }
  return counters;
}
