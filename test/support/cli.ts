import { Readable, Writable } from 'node:stream';
import { runCli } from '../../src/cli/program.ts';
import { readConfig } from '../../src/config.ts';
import { withStoredSecrets } from '../../src/secrets.ts';

export interface CliRun {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/**
 * Runs command lines in this process, as the bin file does, with these settings. `input` is what
 * the command reads from stdin; with `isStderrTerminal` it may draw a progress bar.
 */
export function commandLine(
  environment: Record<string, string>,
  options: { input?: string; isStderrTerminal?: boolean } = {},
) {
  const { input, isStderrTerminal = false } = options;
  const core = async (...args: string[]): Promise<CliRun> => {
    const stdout = collector();
    const stderr = collector();
    if (isStderrTerminal) Object.assign(stderr.stream, { isTTY: true, columns: 80 });
    const { exitCode } = await runCli(args, {
      readConfig: () => withStoredSecrets(readConfig(environment)),
      stdin: Readable.from(input === undefined ? [] : [Buffer.from(input)]),
      stdout: stdout.stream,
      stderr: stderr.stream,
    });
    return { exitCode, stdout: stdout.text(), stderr: stderr.text() };
  };
  /** Runs a command that must succeed and print nothing but JSON, and returns the value. */
  const json = async <T = Record<string, unknown>>(...args: string[]): Promise<T> => {
    const run = await core(...args, '--json');
    if (run.exitCode !== 0 || run.stderr !== '')
      throw new Error(`${args.join(' ')}: ${run.stderr}${run.stdout}`);
    if (!run.stdout.endsWith('\n')) throw new Error(`${args.join(' ')}: no newline at the end`);
    return JSON.parse(run.stdout) as T;
  };
  return { core, json };
}

/** A stream that keeps what is written to it. */
function collector(): { stream: Writable; text: () => string } {
  let collected = '';
  const stream = new Writable({
    write(chunk, _encoding, done) {
      collected += String(chunk);
      done();
    },
  });
  return { stream, text: () => collected };
}
