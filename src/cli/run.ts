import type { CliContext } from './context.ts';

/**
 * What a command does. A role (`up`, `serve`, `work`) and `reconcile` have an exit code of their own:
 * they have closed everything they could by then, and the process is to end at once.
 */
export type CommandBody<Options, Argument, Second = never> = (
  context: CliContext,
  options: Options,
  argument: Argument,
  second: Second,
  // biome-ignore lint/suspicious/noConfusingVoidType: most commands end without a return.
) => Promise<{ exitCode: number } | undefined | void>;

/**
 * Makes a commander action of a command's body: opens the context, runs, and closes whatever the
 * body opened. Commander passes the positional arguments, of which a command has up to two, before the
 * options.
 */
export type Run = <Options extends object, Argument = never, Second = never>(
  body: CommandBody<Options, Argument, Second>,
) => (...given: unknown[]) => Promise<void>;
