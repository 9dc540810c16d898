#!/usr/bin/env -S node --single-threaded-gc
// As nodeFlags in src/node-flags.ts.
import { runCli } from '../cli/program.ts';
import { readConfig } from '../config.ts';
import { withStoredSecrets } from '../secrets.ts';

// A reader that has seen enough (`core user list | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const { exitCode, atOnce } = await runCli(process.argv.slice(2), {
  readConfig: () => withStoredSecrets(readConfig(process.env)),
  stdout: process.stdout,
  stderr: process.stderr,
});
process.exitCode = exitCode;
if (atOnce) process.exit();
