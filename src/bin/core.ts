#!/usr/bin/env -S node --single-threaded-gc
// As nodeFlags in src/processes/node-flags.ts.
import { runCli } from '../cli/program.ts';
import { readConfig } from '../config.ts';
import { withStoredSecrets } from '../secrets.ts';

const args = process.argv.slice(2);
/** `core up` makes what the file of secrets lacks; whoever else finds it lacking something cannot go on. */
const isUp = args.find((arg) => !arg.startsWith('-')) === 'up';
const isRole = args.some((arg) => arg === 'up' || arg === 'serve' || arg === 'work');
// A reader that has seen enough (`core user list | head`) is no failure, nor is a closed terminal
// (EIO). A role goes on without: it has servers to stop in order.
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
