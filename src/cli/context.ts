import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { Config } from '../config.ts';
import { Lifecycle } from '../lifecycle.ts';
import { createLogger, type Logger } from '../log.ts';
import type { ClickHouseClient } from '../stores/clickhouse.ts';
import { escapedJson, jsonText, printableLines } from '../text.ts';
import { openAnalysis, openClickHouse, openPostgres, openRedis } from './open-stores.ts';
import { fieldsText } from './table.ts';

/** Blocks, blanks, newlines and the sequences that set colours. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: each colour sequence begins with one.
const drawing = /^(?:[ ▀▄█\n]|\u001b\[\d{1,2}m)*$/;

/** What a command works with: settings, output, and the stores, each opened at its first use. */
export interface CliContext {
  config: Config;
  json: boolean;
  log: Logger;
  stdin: NodeJS.ReadableStream;
  /** Whether the command can ask an operator. False with `--json`. */
  isAtTerminal: boolean;
  /** For a progress bar. */
  stderr: NodeJS.WritableStream;
  /** Prints the one value of the command: as JSON with `--json`, otherwise as `text`. */
  print(value: unknown, text?: string): void;
  /**
   * Writes text, or a part of the JSON, to stdout, and resolves once it has gone out. This and `print`
   * escape every character that could control a terminal.
   */
  write(text: string): Promise<void>;
  /** Says on stderr what the operator should know besides. Whole lines. */
  note(text: string): void;
  /** Writes a picture of Core's own, in colours. */
  draw(picture: string): Promise<void>;
  /** Asks on stderr, and resolves with the typed line; undefined if the input has ended. */
  ask(question: string): Promise<string | undefined>;
  postgres(): Promise<pg.Pool>;
  redis(): Promise<Redis>;
  clickhouse(): Promise<ClickHouseClient>;
  /** ClickHouse for the operator's own queries. The embedded one is asked as a user who only reads. */
  analysis(): Promise<ClickHouseClient>;
  /** Closes what was opened, so that the process can end. */
  close(): Promise<void>;
}

/**
 * What a command does. A command that returns an exit code has closed what it could, and the process
 * then ends at once.
 */
export type CommandBody<Options, Argument, Second = never> = (
  context: CliContext,
  options: Options,
  argument: Argument,
  second: Second,
  // biome-ignore lint/suspicious/noConfusingVoidType: most commands return nothing.
) => Promise<{ exitCode: number } | undefined | void>;

/**
 * Turns a command's body into an action of commander: it creates the context, runs the body, and closes
 * what the body opened. Commander passes the positional arguments (up to two) before the options.
 */
export type Run = <Options extends object, Argument = never, Second = never>(
  body: CommandBody<Options, Argument, Second>,
) => (...given: unknown[]) => Promise<void>;

export function createCliContext(options: {
  config: Config;
  json: boolean;
  stdin: NodeJS.ReadableStream;
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream;
}): CliContext {
  const { config, json, stdin, stdout, stderr } = options;
  const lifecycle = new Lifecycle();
  const send = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      stdout.write(text, (error) => (error ? reject(error) : resolve()));
    });
  let pool: Promise<pg.Pool> | undefined;
  let redis: Promise<Redis> | undefined;
  let clickhouse: Promise<ClickHouseClient> | undefined;
  let analysis: Promise<ClickHouseClient> | undefined;
  return {
    config,
    json,
    log: createLogger(config.logLevel),
    stdin,
    isAtTerminal: !json && (stdin as { isTTY?: boolean }).isTTY === true,
    stderr,
    print(value, text) {
      if (json) stdout.write(`${jsonText(value)}\n`);
      else stdout.write(printableLines(text ?? fieldsText(value as Record<string, unknown>)));
    },
    write: (text) => send(json ? escapedJson(text) : printableLines(text)),
    note(text) {
      stderr.write(printableLines(text));
    },
    draw(picture) {
      assert(drawing.test(picture), 'a picture is blocks and colours only');
      return send(picture);
    },
    async ask(question) {
      stderr.write(printableLines(question));
      const line = await readLine(stdin);
      if (line === undefined) stderr.write('\n');
      return line;
    },
    postgres: () => (pool ??= openPostgres(config, lifecycle)),
    redis: () => (redis ??= openRedis(config, lifecycle)),
    clickhouse: () => (clickhouse ??= openClickHouse(config, lifecycle)),
    analysis: async () => (analysis ??= openAnalysis(config, lifecycle)),
    close: () => lifecycle.close(),
  };
}

/** The next line; undefined if the input has ended. Afterwards stdin no longer keeps the process alive. */
async function readLine(stdin: NodeJS.ReadableStream): Promise<string | undefined> {
  const lines = createInterface({ input: stdin, terminal: false });
  try {
    return await new Promise((resolve) => {
      lines.once('line', resolve);
      lines.once('close', () => resolve(undefined));
    });
  } finally {
    lines.close();
    (stdin as { unref?: () => void }).unref?.();
  }
}
