import { Command, Option } from 'commander';
import { toCoreError } from '../../src/errors.ts';
import { integer } from '../../src/integer.ts';
import { untilSignalled } from '../../src/lifecycle.ts';
import { type Removal, removalMix, removals } from './faults/removals.ts';
import { summaryText } from './faults/report.ts';
import { type ScenarioName, scenarioNames } from './faults/scenarios.ts';
import { noMix, wholeMix } from './faults/schedule.ts';
import { runSuite, type SuiteOptions, type SuiteResult } from './faults/suite.ts';

const shownMax = 20;
/** Rounds with the protection in place, before the rounds without it: these must find nothing. */
const controlRounds = 8;
/**
 * ClickHouse's memory of insert tokens hides a missing read-back or lock. These two protect a Core
 * after ClickHouse has forgotten a token, so it remembers one token only in both halves.
 */
const shortWindow = 1;
const shortWindowFor: readonly (Removal | undefined)[] = ['readback', 'lock'];

function readOptions(): Options {
  const program = new Command('faults')
    .description('Kills every process of a Core under load, again and again, and checks its data.')
    .option('--rounds <n>', 'rounds to play', integer(1, 1_000_000), 200)
    .option(
      '--seed <n>',
      'seed of the faults and of what the nodes send',
      integer(0, 4_294_967_295),
      1,
    )
    .option('--from <n>', 'number of the first round, to repeat one', integer(1, 1_000_000), 1)
    .addOption(
      new Option(
        '--remove <protection>',
        'take one protection of Core away: the oracle must notice',
      ).choices(removals),
    )
    .addOption(
      new Option('--scenario <name>', 'play this in every round, instead of the kills')
        .choices(scenarioNames)
        .conflicts('remove'),
    )
    .option(
      '--window <n>',
      'insert tokens that ClickHouse remembers for each table',
      integer(0, 1_000_000),
    )
    .option('--away-seconds <n>', 'length of an outage in `store-away-long`', integer(1, 3_600), 60)
    .option('--json', 'print one JSON value and nothing else', false)
    .parse();
  const given = program.opts();
  const removal = given['remove'] as Removal | undefined;
  const scenario =
    removal === 'numbers' ? 'late-repeats' : (given['scenario'] as ScenarioName | undefined);
  const interrupted = new AbortController();
  void untilSignalled().then(() => interrupted.abort());
  return {
    rounds: given['rounds'],
    from: given['from'],
    seed: given['seed'],
    removal,
    scenario,
    mix: removal !== undefined ? removalMix[removal] : scenario === undefined ? wholeMix : noMix,
    window: given['window'] ?? (shortWindowFor.includes(removal) ? shortWindow : undefined),
    awaySeconds: given['awaySeconds'],
    json: given['json'],
    say: (line) => (given['json'] ? process.stderr : process.stdout).write(`${line}\n`),
    interrupted: interrupted.signal,
  };
}

type Options = SuiteOptions & { json: boolean };

/** Plays the rounds. Any violation is a failure. */
async function playRounds(options: Options): Promise<number> {
  const { summary, violations, dataDir } = await runSuite(options);
  const passed = violations.length === 0 && summary.rounds > 0;
  if (options.json) {
    print({ passed, ...summary, violations, dataDir });
    return passed ? 0 : 1;
  }
  tell(options, { summary, violations, dataDir });
  const round = options.from + summary.rounds - 1;
  options.say(
    passed
      ? `faults: OK, ${summary.rounds} rounds, nothing lost, nothing twice`
      : `faults: ${violations.length} violations; repeat with --seed ${summary.seed} --from ${round} ` +
          `--rounds 1; logs and stores are kept in ${dataDir}`,
  );
  return passed ? 0 : 1;
}

/**
 * Shows that the suite can fail. Plays the faults that a protection is for, once with and once without it:
 * with the protection the oracle must find nothing, and without it something.
 */
async function playWithout(options: Options, removal: Removal): Promise<number> {
  const rounds = Math.min(controlRounds, options.rounds);
  options.say(`with ${removal}: ${rounds} rounds`);
  const control = await runSuite({ ...options, rounds, removal: undefined });
  if (!options.json) tell(options, control);
  options.say(`without ${removal}: up to ${options.rounds} rounds`);
  const removed = await runSuite(options);
  const passed = control.violations.length === 0 && removed.violations.length > 0;
  if (options.json) {
    print({ passed, removal, control, removed });
    return passed ? 0 : 1;
  }
  tell(options, removed);
  const seen = Object.entries(removed.summary.violations).filter(([, count]) => count > 0);
  options.say(
    `faults: with ${removal} ${control.violations.length} violations in ${control.summary.rounds} rounds; ` +
      `without it ${seen.map(([kind, count]) => `${count} ${kind}`).join(', ') || 'none'} ` +
      `in ${removed.summary.rounds} rounds: ${passed ? 'OK' : 'NOT AS EXPECTED'}`,
  );
  return passed ? 0 : 1;
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

function tell(options: Options, { summary, violations }: SuiteResult): void {
  for (const { text } of violations.slice(0, shownMax)) options.say(text);
  options.say(summaryText(summary));
}

async function main(): Promise<void> {
  const options = readOptions();
  const { removal } = options;
  process.exitCode =
    removal === undefined ? await playRounds(options) : await playWithout(options, removal);
}

main().catch((thrown: unknown) => {
  const { message, cause } = toCoreError(thrown);
  process.stderr.write(`faults: ${cause instanceof Error ? cause.stack : message}\n`);
  process.exitCode = 1;
});
