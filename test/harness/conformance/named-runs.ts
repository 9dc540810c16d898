import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { Lifecycle } from '../../../src/lifecycle.ts';
import { runBehindProxy } from './behind-proxy.ts';
import { type Cell, missingIn } from './cells.ts';
import { compareVersions } from './gaps.ts';
import { runImports } from './import.ts';
import { runInbounds } from './inbounds.ts';
import { type ComparisonResult, runOutbounds } from './outbounds.ts';
import { runPages } from './pages.ts';
import type { Program } from './programs.ts';
import { runRules } from './rules.ts';
import type { Bench } from './trial.ts';
import { runVision } from './vision.ts';

/** What a run beside the matrix came to. */
export interface NamedResult {
  name: string;
  xray: string;
  /** What was run, with its figures. */
  summary: string;
  /** Empty if all is well. */
  faults: string[];
}

interface Given {
  bench: Bench;
  xray: Program;
  cells: readonly Cell[];
  /** The seed of random settings. The same seed makes the same ones. */
  seed: number;
}

interface NamedRun {
  /** What it shows, for the page. */
  shows: string;
  run(given: Given): Promise<Omit<NamedResult, 'name' | 'xray'>>;
}

const faultsShown = 10;
const charsShown = 500;

/** Each runs on the newest of the chosen versions of Xray. */
export const namedRuns = {
  inbounds: {
    shows: 'Xray takes what Core renders of random settings of protocols that Core takes.',
    async run({ xray, bench, seed }) {
      const sample = 60;
      const refusals = await runInbounds(xray.file, bench.say, { sample, seed });
      return {
        summary: `${sample} random settings of each protocol, and the golden cases`,
        faults: refusals.map((one) => text('Xray refuses', one)),
      };
    },
  },
  outbounds: {
    shows:
      'Core takes no outbound that Xray refuses, and refuses none without a reason of its own.',
    async run({ xray, bench, seed }) {
      return judged(await runOutbounds(xray.file, bench.say, { samples: 300, seed }));
    },
  },
  rules: {
    shows: 'The same of rules, DNS and balancers.',
    async run({ xray, bench, seed }) {
      return judged(await runRules(xray.file, bench.say, { samples: 200, seed }));
    },
  },
  vision: {
    shows: 'Without splicing, Xray has counted all bytes of a vision download while it still runs.',
    async run({ xray, bench }) {
      const outcomes = await runVision(xray.file, bench.say);
      const faults = outcomes.filter(({ splice, came, counted }) =>
        splice ? counted * 2 > came : counted < came || came === 0,
      );
      return {
        summary: outcomes
          .map(({ splice, came, counted }) => {
            return `${splice ? 'spliced' : 'not spliced'} ${counted} of ${came} bytes`;
          })
          .join(', '),
        faults: faults.map((one) => text('other bytes were counted than expected', one)),
      };
    },
  },
  'behind-proxy': {
    shows:
      'Links lead through an nginx that ends TLS, and Xray takes the address that nginx hands on.',
    async run({ xray, bench }) {
      const outcomes = await runBehindProxy(xray.file, bench.say);
      const faults = outcomes.filter(
        ({ isWhole, isTrusted, from, forwarded }) =>
          !isWhole || (from === forwarded) !== (isTrusted || trustsAll(xray.version)),
      );
      return {
        summary: outcomes.map(({ name, from }) => `${name} (${from})`).join('; '),
        faults: faults.map((one) => text('other bytes or another address', one)),
      };
    },
  },
  pages: {
    shows: "Bytes move through each entry of a subscription's page in mihomo and sing-box.",
    run: onPages,
  },
  import: {
    shows:
      'Clients with the links of another panel go on after `core import`, and their bytes count.',
    async run({ xray, bench }) {
      const results = await runImports(bench, xray);
      return {
        summary: results
          .map(
            ({ panel, inbound, connected, links }) =>
              `${panel} ${inbound} ${connected} of ${links}`,
          )
          .join('; '),
        faults: results
          .filter(({ fault }) => fault !== undefined)
          .map((one) => text('an old link does not connect', one)),
      };
    },
  },
} satisfies Record<string, NamedRun>;

export type RunName = keyof typeof namedRuns;
export const runNames = Object.keys(namedRuns) as RunName[];

/** Runs one of them. What it throws is a fault, too, so that the others still run. */
export async function runNamed(name: RunName, given: Given): Promise<NamedResult> {
  const startedMs = performance.now();
  const found = await namedRuns[name].run(given).catch((thrown: Error) => ({
    summary: 'did not come to its end',
    faults: [thrown.message.slice(0, charsShown)],
  }));
  const seconds = Math.round((performance.now() - startedMs) / 1_000);
  given.bench.say(`${name}: ${seconds} s, ${found.faults.length} faults, seed ${given.seed}`);
  return { name, xray: given.xray.version, ...found };
}

/** Before 26.6.22, Xray believes whoever says whose address it is. */
function trustsAll(version: string): boolean {
  return compareVersions(version, '26.6.22') < 0;
}

function judged(result: ComparisonResult): Omit<NamedResult, 'name' | 'xray'> {
  const { samples, accepted, wronglyAccepted, wronglyRefused } = result;
  return {
    summary: `${samples} samples, of which Core takes ${accepted}`,
    faults: [
      ...wronglyAccepted.map((one) => text('Xray refuses what Core takes', one)),
      ...wronglyRefused.map((one) => text('Core refuses what Xray takes', one)),
    ].slice(0, faultsShown),
  };
}

async function onPages({ bench, xray, cells }: Given): Promise<Omit<NamedResult, 'name' | 'xray'>> {
  const lifecycle = new Lifecycle();
  const folder = path.join(bench.folder, 'pages');
  mkdirSync(folder);
  // The page has no place for what a proxy in front serves, and REALITY has to let the clients in.
  const onPage = cells.filter(
    ({ behind, name, credential }) =>
      behind === undefined && credential === undefined && !/-reality(-vision)?$/.test(name),
  );
  const clients = Object.fromEntries(
    bench.clients.map(({ name, program }) => [name, program.file]),
  );
  try {
    const results = await runPages({
      core: bench.core,
      xray: xray.file,
      clients,
      cells: onPage,
      authorityFile: bench.certificate.authorityFile,
      folder,
      lifecycle,
    });
    const byName = new Map(onPage.map((cell) => [cell.name, cell]));
    const faults = results.filter(({ cell, client, outcome }) => {
      const isMissing = missingIn(client, byName.get(cell) as Cell) !== undefined;
      return outcome !== (isMissing ? 'left out' : 'passed');
    });
    const passed = results.filter(({ outcome }) => outcome === 'passed').length;
    return {
      summary: `${passed} entries moved bytes, ${results.length - passed} were left out or failed`,
      faults: faults.map((one) => text('another outcome than expected', one)),
    };
  } finally {
    await lifecycle.close();
  }
}

function text(what: string, value: unknown): string {
  return `${what}: ${JSON.stringify(value)}`.slice(0, charsShown);
}
