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
  v2ray: string;
  v2ctl: string;
  /** Replaces the port in the configuration. */
  apiPort: number | undefined;
  heartbeatSeconds: number;
  usageSeconds: number;
  offlineSeconds: number;
  retrySeconds: number;
  reapplySeconds: number;
  spoolBytesMax: number;
  logLevel: string;
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

/** Reads the command line. Ends the process with one clear line if it cannot be used. */
export function readSettings(argv: readonly string[]): Settings {
  const program = new Command('agent')
    .description('A node of Core that runs v2ray 4.34')
    .addOption(
      new Option('--url <url>', 'where Core listens')
        .env('CORE_AGENT_URL')
        .default('http://127.0.0.1:8080')
        .argParser(coreUrl),
    )
    .addOption(
      new Option('--code <code>', 'registration code, at the first start').env('CORE_AGENT_CODE'),
    )
    .option('--name <name>', 'name to register with; empty leaves what Core has', '')
    .option('--host <host>', 'host name that clients connect to', '')
    .option('--ip <ip>', 'address that clients connect to', '')
    .option('--region <region>', 'region of the node', '')
    .option(
      '--data-dir <folder>',
      'folder of the key, the stored posts and the configuration',
      '.agent',
    )
    .option('--v2ray <program>', 'the proxy', 'v2ray')
    .option('--v2ctl <program>', "the proxy's control program", 'v2ctl')
    .option(
      '--api-port <port>',
      "port of the proxy's API, instead of Core's choice",
      integer(1, 65_535),
    )
    .option('--heartbeat-seconds <n>', 'seconds between two heartbeats', number(0.05, 3_600), 10)
    .option('--usage-seconds <n>', 'seconds between two usage posts', number(0.05, 3_600), 60)
    .option(
      '--offline-seconds <n>',
      'seconds without traffic until a user is offline',
      number(0.05, 86_400),
      180,
    )
    .option('--retry-seconds <n>', 'longest wait between two attempts', number(0.05, 3_600), 30)
    .option(
      '--reapply-seconds <n>',
      'seconds until a failed configuration is tried again',
      number(0, 86_400),
      60,
    )
    .option(
      '--spool-bytes-max <n>',
      'largest size of all stored posts',
      integer(1, 1e12),
      67_108_864,
    )
    .option('--log-level <level>', 'lowest level that is logged', 'info')
    .parse(argv, { from: 'user' });
  const options = program.opts<Settings>();
  return { ...options, dataDir: path.resolve(options.dataDir) };
}
