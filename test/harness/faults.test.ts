import t from 'tap';
import { readConfig } from '../../src/config.ts';
import { failpointNames } from '../../src/failpoints.ts';
import { victims } from './faults/killable.ts';
import type { Violation } from './faults/oracle.ts';
import { removalMix } from './faults/removals.ts';
import { planRound, wholeMix } from './faults/schedule.ts';
import { runSuite } from './faults/suite.ts';

t.test('a seed fixes the schedule, which kills every process at every failpoint', async (t) => {
  const plans = (seed: number) =>
    Array.from({ length: wholeMix.pairs.length }, (_, index) =>
      planRound(seed, index + 1, wholeMix),
    );
  t.same(plans(5), plans(5));
  t.notSame(plans(5), plans(6));
  const struck = new Set(
    plans(5).flatMap(({ kills }) =>
      kills.map(({ victim, when }) => `${victim} ${'failpoint' in when ? when.failpoint : ''}`),
    ),
  );
  for (const victim of victims) {
    for (const name of failpointNames) t.ok(struck.has(`${victim} ${name}`), `${victim} ${name}`);
  }
});

t.test('the failpoint URL must be on loopback', async (t) => {
  const url = 'http://127.0.0.1:9';
  t.equal(readConfig({ CORE_FAILPOINT_URL: url }).failpointUrl, url);
  t.equal(readConfig({}).failpointUrl, undefined);
  for (const other of [
    'http://198.51.100.7:9',
    'http://127.0.0.1.example.net',
    'ftp://localhost',
  ]) {
    t.throws(() => readConfig({ CORE_FAILPOINT_URL: other }), { code: 'INVALID_SETTINGS' });
  }
});

t.test('kill -9 of every process, on real stores: nothing lost, nothing twice', async (t) => {
  const { summary, violations } = await runSuite({
    rounds: 6,
    from: 1,
    seed: 20,
    mix: wholeMix,
    removal: undefined,
    scenario: undefined,
    window: undefined,
    say: (line) => t.comment(line),
    interrupted: new AbortController().signal,
  });
  t.same(violations, []);
  t.equal(summary.rounds, 6);
  t.ok(summary.acked > 0);
  t.ok(Object.values(summary.kills).some((count) => count > 0));
});

t.test('the oracle can fail: without idempotency keys Core counts a repeat twice', async (t) => {
  const { violations } = await runSuite({
    rounds: 5,
    from: 1,
    seed: 20,
    mix: removalMix.idempotency,
    removal: 'idempotency',
    scenario: undefined,
    window: undefined,
    say: (line) => t.comment(line),
    interrupted: new AbortController().signal,
  });
  t.ok(violations.some(({ kind }) => kind === 'doubled'));
});

t.test('the oracle can fail: without numbers a repeat after a day counts twice', async (t) => {
  for (const removal of [undefined, 'numbers'] as const) {
    const { violations } = await runSuite({
      rounds: 2,
      from: 1,
      seed: 20,
      mix: removalMix.numbers,
      removal,
      scenario: 'late-repeats',
      window: undefined,
      say: (line) => t.comment(line),
      interrupted: new AbortController().signal,
    });
    const isDoubled = violations.some(({ kind }) => kind === 'doubled');
    if (removal === undefined) t.same(violations, []);
    else t.ok(isDoubled);
  }
});

t.test('the oracle can fail: without its lock two workers load a stream at once', async (t) => {
  const rounds = 10;
  const found: Violation[] = [];
  const isDoubled = (): boolean => found.some(({ kind }) => kind === 'doubled');
  // A suite ends at its first violation. Sometimes that is a job that failed because the other worker was
  // faster. Then the test plays the remaining rounds.
  for (let played = 0; played < rounds && !isDoubled(); ) {
    const { summary, violations } = await runSuite({
      rounds: rounds - played,
      from: played + 1,
      seed: 20,
      mix: removalMix.lock,
      removal: 'lock',
      scenario: undefined,
      window: 1,
      say: (line) => t.comment(line),
      interrupted: new AbortController().signal,
    });
    for (const { text } of violations) t.comment(text);
    found.push(...violations);
    played += summary.rounds;
  }
  t.ok(isDoubled());
});
