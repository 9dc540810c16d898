import { until } from '../../support/api.ts';
import { eachOf } from './each-of.ts';
import { parallelTrials, wayOf } from './move.ts';
import type { DrivenNode } from './node.ts';
import { exchange } from './traffic.ts';
import { type Bench, fail, open, type Trial } from './trial.ts';

const cutMsMax = 10_000;

/**
 * Disables the users of all clients, and applies what Core makes of it. The open sessions must end, and a
 * new one must not come through. The witness must still have access to each cell, so that a cell which is
 * broken as a whole does not pass.
 */
export async function cutOff(given: {
  bench: Bench;
  node: DrivenNode;
  trials: readonly Trial[];
  witnesses: readonly Trial[];
}): Promise<void> {
  const { bench, node, trials, witnesses } = given;
  if (open(trials).length === 0) return;
  const subscriptionIds = new Set(trials.map(({ subscriptionId }) => subscriptionId));
  for (const id of subscriptionIds) await bench.core.command('subscription', 'disable', String(id));
  const gone = new Set(trials.map(({ uuid }) => uuid));
  const config = await node.pull(
    ({ clientMap }) => !Object.keys(clientMap).some((uuid) => gone.has(uuid)),
  );
  await node.report();
  const refused = await node.refusedInbounds(config);
  await node.apply(config, new Set(refused.keys()));
  await eachOf(open(trials), trials.length, async (trial) => {
    // A client over QUIC notices late that the server has gone, so the end is seen at the site.
    const ended = await until(
      async () => trial.door.open(),
      (count) => count === 0,
      cutMsMax,
    ).then(
      () => true,
      () => false,
    );
    if (!ended) return fail(trial, 'd', 'a session of the removed user stayed open');
    const before = trial.door.arrivals();
    const asked = { seed: trial.seed + 4, up: 1, down: 1, stays: false };
    const tried = exchange(wayOf(trial), asked).then(
      () => true,
      () => false,
    );
    if ((await within(tried, cutMsMax)) === true || trial.door.arrivals() > before) {
      fail(
        trial,
        'd',
        `the removed user has connected again (${trial.door.arrivals() - before} arrivals)`,
      );
    }
  });
  await eachOf(witnesses, parallelTrials, async (witness) => {
    const asked = { seed: witness.seed + 5, up: 1_000, down: 1_000, stays: false };
    const attempt = () =>
      exchange(wayOf(witness), asked).then(
        () => undefined,
        (thrown: Error) => thrown.message,
      );
    // The first one may go into a connection to the Xray that was stopped, which the client keeps for a while.
    const passed = (await attempt()) === undefined ? undefined : await attempt();
    if (passed === undefined) return;
    for (const trial of open(trials).filter(({ cell }) => cell === witness.cell)) {
      fail(trial, 'd', `the user that was not removed is cut off, too: ${passed}`);
    }
  });
}

/** The answer of the promise, or `false` if it takes longer. `undefined` becomes `'ended'`. */
async function within(promise: Promise<unknown>, msMax: number): Promise<unknown> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), msMax);
  });
  const ended = promise.then((answer) => answer ?? 'ended');
  return Promise.race([ended, late]).finally(() => clearTimeout(timer));
}
