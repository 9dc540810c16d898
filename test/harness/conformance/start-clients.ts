import { mkdirSync } from 'node:fs';
import path from 'node:path';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import type { ClientName } from './cells.ts';
import type { Child } from './child.ts';
import { startMihomoClient } from './mihomo-client.ts';
import { readLink } from './read-link.ts';
import { startSingBoxClient } from './sing-box-client.ts';
import { type Bench, fail, open, type Trial } from './trial.ts';
import { startXrayClient } from './xray-client.ts';

const charsShown = 600;

/** Starts each client with the links of its trials. A client that does not start fails all of them. */
export async function startClients(
  bench: Bench,
  trials: readonly Trial[],
  lifecycle: Lifecycle,
): Promise<Map<ClientName, Child>> {
  const start = {
    xray: startXrayClient,
    'sing-box': startSingBoxClient,
    mihomo: startMihomoClient,
  };
  const running = new Map<ClientName, Child>();
  for (const trial of open(trials)) failIfUnreadable(trial);
  for (const { name, program } of bench.clients) {
    const own = open(trials).filter(({ client }) => client === name);
    const folder = path.join(bench.folder, name);
    mkdirSync(folder);
    try {
      const { authorityFile } = bench.certificate;
      const links = own.map(({ link }) => link);
      const child = await start[name](program.file, { folder, authorityFile, links });
      lifecycle.use(name, () => child.stop());
      running.set(name, child);
    } catch (thrown) {
      for (const trial of own) fail(trial, 'b', (thrown as Error).message.slice(-charsShown));
    }
  }
  return running;
}

/** A link with a parameter that nobody knows must not pass because a client ignores it. */
function failIfUnreadable(trial: Trial): void {
  try {
    readLink(trial.link.uri);
  } catch (thrown) {
    fail(trial, 'b', (thrown as Error).message);
  }
}
