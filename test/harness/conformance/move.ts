import type { ClientName } from './cells.ts';
import type { Child } from './child.ts';
import { eachOf } from './each-of.ts';
import { exchange, exchangeDatagrams, type Way } from './traffic.ts';
import { fail, type Trial } from './trial.ts';

const upBytes = 1_000_000;
const downBytes = 3_000_000;
const datagrams = 64;
/** Trials that move their bytes at the same time. */
export const parallelTrials = 6;
const charsShown = 300;

/** Moves bytes over TCP and UDP through each client. The TCP connections stay open. */
export async function moveAll(
  trials: readonly Trial[],
  running: ReadonlyMap<ClientName, Child>,
): Promise<void> {
  await eachOf(trials, parallelTrials, async (trial) => {
    const reason = (thrown: unknown): string => {
      const said = running.get(trial.client)?.log() ?? '';
      const lines = said.split('\n').filter((line) => line.includes(trial.link.tag));
      return `${(thrown as Error).message}; ${lines.slice(-2).join('; ').slice(-charsShown)}`;
    };
    try {
      // It stays open: the bytes must count while the connection lasts, or no limit would end a download.
      const asked = { seed: trial.seed, up: upBytes, down: downBytes, stays: true };
      await exchange(wayOf(trial), asked);
    } catch (thrown) {
      return fail(trial, 'b', reason(thrown));
    }
    try {
      const way = { ...wayOf(trial), targetPort: trial.door.udpPort };
      await exchangeDatagrams(way, { seed: trial.seed + 3, count: datagrams });
    } catch (thrown) {
      fail(trial, 'u', reason(thrown));
    }
  });
}

export function wayOf({ link, door, cell }: Trial): Way {
  return { socksPort: link.socksPort, targetPort: door.port, isTls: cell.isInnerTls };
}
