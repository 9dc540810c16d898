import path from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { integer } from '../../src/integer.ts';

export interface Settings {
  url: string;
  /** Needed at the first start only. */
  code: string | undefined;
  name: string;
  host: string;
  ip: string;
  region: string;
  dataDir: string;
  v2ray: string;
  v2ctl: string;
  /** In place of the one in the configuration. */
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
    throw new InvalidArgumentError(`Not a number from ${min} to ${max}.`);
  };
const coreUrl = (text: string): string => {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text;
  throw new InvalidArgumentError('Not an http or https URL.');
};

/** The command line; ends the process with one clear line where it cannot be used. */
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
    .option('--data-dir <folder>', 'where key, spool and configuration are kept', '.agent')
    .option('--v2ray <program>', 'the proxy', 'v2ray')
    .option('--v2ctl <program>', "the proxy's control program", 'v2ctl')
    .option('--api-port <port>', "of the proxy, in place of Core's choice", integer(1, 65_535))
    .option('--heartbeat-seconds <n>', 'between two heartbeats', number(0.05, 3_600), 10)
    .option('--usage-seconds <n>', 'between two usage posts', number(0.05, 3_600), 60)
    .option('--offline-seconds <n>', 'of rest until a user is offline', number(0.05, 86_400), 180)
    .option('--retry-seconds <n>', 'longest wait between two attempts', number(0.05, 3_600), 30)
    .option('--reapply-seconds <n>', 'until a failed config is tried again', number(0, 86_400), 60)
    .option('--spool-bytes-max <n>', 'bound of the spool', integer(1, 1e12), 67_108_864)
    .option('--log-level <level>', 'least severe level that is logged', 'info')
    .parse(argv, { from: 'user' });
  const options = program.opts<Settings>();
  return { ...options, dataDir: path.resolve(options.dataDir) };
}
