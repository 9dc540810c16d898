#!/usr/bin/env -S node --single-threaded-gc
// The flag is nodeFlags in src/processes/node-flags.ts.
import { runCli } from '../cli/program.ts';
import { readConfig } from '../config.ts';
import { withStoredSecrets } from '../secrets.ts';

const args = process.argv.slice(2);
/** `core up` adds secrets that the file lacks. Every other command fails if one is missing. */
const isUp = args.find((arg) => !arg.startsWith('-')) === 'up';
const isRole = args.some((arg) => arg === 'up' || arg === 'serve' || arg === 'work');
// It is no failure if the reader has seen enough (`core user list | head`) or the terminal was closed (EIO).
// Only a role goes on after that, because it has servers to stop in order.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  const isReaderGone = error.code === 'EPIPE' || error.code === 'EIO';
  if (!isReaderGone) throw error;
  if (!isRole) process.exit(0);
});
process.stderr.on('error', () => undefined);

const { exitCode, atOnce } = await runCli(args, {
  readConfig: () => {
    const config = readConfig(process.env);
    return isUp ? config : withStoredSecrets(config);
  },
  stdout: process.stdout,
  stderr: process.stderr,
});
process.exitCode = exitCode;
if (atOnce) process.exit();
