import path from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { integer } from '../../src/integer.ts';

export interface Settings {
  url: string;
  /** Needed only at the first start. */
  code: string | undefined;
  name: string;
  host: string;
  ip: string;
  region: string;
  dataDir: string;
  xray: string;
  /** Replaces the port in the configuration. */
  apiPort: number | undefined;
  heartbeatSeconds: number;
  usageSeconds: number;
  offlineSeconds: number;
  retrySeconds: number;
  reapplySeconds: number;
  spoolBytesMax: number;
  logLevel: string;
  check: boolean;
}

const number =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (text !== '' && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`);
  };
const coreUrl = (text: string): string => {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text;
  throw new InvalidArgumentError('It must be an http or https URL.');
};

type Parse = (text: string) => unknown;
/** Flag, what it means, default, and how it is read. */
const options: [string, string, unknown?, Parse?][] = [
  ['--url <url>', 'where Core listens', 'http://127.0.0.1:8080', coreUrl],
  ['--code <code>', 'registration code, at the first start'],
  ['--name <name>', 'name to register with; empty leaves what Core has', ''],
  ['--host <host>', 'host name that clients connect to', ''],
  ['--ip <ip>', 'address that clients connect to', ''],
  ['--region <region>', 'region of the node', ''],
  ['--data-dir <folder>', 'folder of the key, the stored posts and the configuration', '.agent'],
  ['--xray <program>', 'the proxy: a path, or a name on the PATH', 'xray'],
  [
    '--api-port <port>',
    "port of Xray's API, instead of Core's choice",
    undefined,
    integer(1, 65_535),
  ],
  ['--heartbeat-seconds <n>', 'seconds between two heartbeats', 10, number(0.05, 3_600)],
  ['--usage-seconds <n>', 'seconds between two readings of the counters', 10, number(0.05, 3_600)],
  ['--offline-seconds <n>', 'seconds at rest until a user is offline', 60, number(0.05, 86_400)],
  ['--retry-seconds <n>', 'longest wait between two attempts', 30, number(0.05, 3_600)],
  ['--reapply-seconds <n>', 'seconds until a failed one is tried again', 60, number(0, 86_400)],
  ['--spool-bytes-max <n>', 'largest size of all stored posts', 67_108_864, integer(1, 1e12)],
];
const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

/**
 * Reads the command line. An option that is not on it may be an environment variable: `CORE_AGENT_` and
 * its name, for instance CORE_AGENT_DATA_DIR. Ends the process with one clear line if it cannot be used.
 */
export function readSettings(argv: readonly string[]): Settings {
  const program = new Command('agent').description('A node of Core that runs Xray');
  for (const [flags, text, standard, parse] of options) {
    const option = new Option(flags, text);
    option.env(variableOf(option)).default(standard);
    program.addOption(parse === undefined ? option : option.argParser(parse));
  }
  program.addOption(
    new Option('--log-level <level>', 'lowest level that is logged')
      .env('CORE_AGENT_LOG_LEVEL')
      .choices(levels)
      .default('info'),
  );
  program.option('--check', 'say what is wrong with this machine and the settings, and end', false);
  program.parse(argv, { from: 'user' });
  const settings = program.opts<Settings>();
  return { ...settings, dataDir: path.resolve(settings.dataDir) };
}

function variableOf(option: Option): string {
  return `CORE_AGENT_${option.name().toUpperCase().replaceAll('-', '_')}`;
}
