import { Command, InvalidArgumentError } from 'commander';
import { settingsSchema } from '../src/environment.ts';
import { CoreError, toCoreError } from '../src/errors.ts';
import { integer } from '../src/integer.ts';
import { untilSignalled } from '../src/lifecycle.ts';
import { compareWith } from './measure/compare.ts';
import {
  type BenchName,
  type BenchOptions,
  benchNames,
  namedOnly,
  notCompared,
} from './measure/metric.ts';
import { isGood, runBenches } from './measure/run.ts';

/** Adds one `NAME=VALUE` to those given before it. */
function setting(text: string, before: Record<string, string>): Record<string, string> {
  const at = text.indexOf('=');
  const name = text.slice(0, at);
  if (at < 1 || !(name in settingsSchema.shape)) {
    throw new InvalidArgumentError('Not NAME=VALUE with a setting of .env.example.');
  }
  return { ...before, [name]: text.slice(at + 1) };
}

function benches(names: readonly string[]): BenchName[] {
  for (const name of names) {
    if (!benchNames.some((known) => known === name)) {
      throw new CoreError(
        'INVALID_ARGUMENT',
        `There is no bench ${name}; there are ${benchNames.join(', ')}`,
      );
    }
  }
  return benchNames.filter((name) =>
    names.length === 0 ? !namedOnly.includes(name) : names.includes(name),
  );
}

/** @throws CoreError INVALID_ARGUMENT for a bench that an older commit may be unable to run. */
function comparedBenches(names: readonly string[]): BenchName[] {
  const found = benches(names).filter((name) => names.length > 0 || !notCompared.includes(name));
  const alone = found.find((name) => notCompared.includes(name));
  if (alone === undefined) return found;
  throw new CoreError('INVALID_ARGUMENT', `Two commits cannot be compared by the bench ${alone}`);
}

function addOptions(command: Command): Command {
  return command
    .option('--quick', 'short runs with few nodes: to see that it works, not for figures', false)
    .option('--rounds <n>', 'repetitions; each figure is their median', integer(1, 100))
    .option('--seconds <n>', 'length of the sustained runs', integer(5, 3_600))
    .option('--nodes <n>', 'nodes that send', integer(1, 10_000))
    .option('--subscriptions <n>', 'subscriptions that have traffic', integer(1, 1_000_000))
    .option('--connections <n>', 'connections of the sender', integer(1, 1_000), 256)
    .option(
      '--entries <n>',
      'entries a request of accept, e2e, latency and peers, instead of several sizes',
      integer(1, 1_000),
    )
    .option(
      '--rate <n>',
      'entries a second of latency, and of e2e, which otherwise looks for the highest rate',
      integer(1_000, 10_000_000),
    )
    .option('--set <name=value>', 'a setting of the measured Core; repeatable', setting, {});
}

function readOptions(given: Record<string, unknown>, signal: AbortSignal): BenchOptions {
  const quick = given['quick'] as boolean;
  const number = (name: string, usual: number): number => (given[name] as number) ?? usual;
  return {
    quick,
    rounds: number('rounds', quick ? 1 : 3),
    seconds: number('seconds', quick ? 10 : 60),
    nodes: number('nodes', quick ? 500 : 10_000),
    subscriptions: number('subscriptions', quick ? 10_000 : 200_000),
    connections: number('connections', 256),
    entries: given['entries'] as number | undefined,
    rate: given['rate'] as number | undefined,
    profileDir: given['profile'] as string | undefined,
    settings: given['set'] as Record<string, string>,
    say: (line) => process.stderr.write(`${line}\n`),
    signal,
    earlier: [],
  };
}

/** The options of each single run of a comparison. A round of the comparison is a run of one round. */
function argumentsOf(options: BenchOptions): string[] {
  const { quick, seconds, nodes, subscriptions, connections, entries, rate, settings } = options;
  return [
    ...(quick ? ['--quick'] : []),
    ...['--rounds', '1', '--seconds', String(seconds), '--nodes', String(nodes)],
    ...['--subscriptions', String(subscriptions), '--connections', String(connections)],
    ...(entries === undefined ? [] : ['--entries', String(entries)]),
    ...(rate === undefined ? [] : ['--rate', String(rate)]),
    ...Object.entries(settings).flatMap(([name, value]) => ['--set', `${name}=${value}`]),
  ];
}

async function main(): Promise<void> {
  const interrupted = new AbortController();
  void untilSignalled().then(() => interrupted.abort(new Error('interrupted')));
  const program = new Command('bench')
    .description('Measures Core on this machine.')
    // Without it, commander gives the options after `compare` to the command above it.
    .enablePositionalOptions();
  addOptions(program)
    .argument(
      '[benches...]',
      `any of ${benchNames.join(', ')}; without a name all but ${namedOnly.join(', ')}`,
    )
    .option('--profile <folder>', 'write V8 CPU profiles of api and worker to this folder')
    .option('--out <file>', 'write the results to this file, and neither keep nor compare them')
    .action(async (names: string[], given: Record<string, unknown>) => {
      const options = readOptions(given, interrupted.signal);
      const out = given['out'] as string | undefined;
      const results = await runBenches(benches(names), options, out);
      process.exitCode = isGood(results) ? 0 : 1;
    });
  addOptions(program.command('compare'))
    .description('measures another commit and this tree by turns, and prints medians and ratios')
    .option(
      '--own-bench',
      "measure the base with its own measuring code, not with this tree's",
      false,
    )
    .argument('<base>', 'commit, branch or tag')
    .argument('[benches...]', 'as above')
    .action(async (base: string, names: string[], given: Record<string, unknown>) => {
      const options = readOptions(given, interrupted.signal);
      const good = await compareWith({
        base,
        ownBench: given['ownBench'] as boolean,
        rounds: options.rounds,
        args: [...comparedBenches(names), ...argumentsOf(options)],
        say: options.say,
        signal: options.signal,
      });
      process.exitCode = good ? 0 : 1;
    });
  await program.parseAsync();
}

main().catch((thrown: unknown) => {
  const { message, cause } = toCoreError(thrown);
  process.stderr.write(`bench: ${cause instanceof Error ? cause.stack : message}\n`);
  process.exitCode = 1;
});
