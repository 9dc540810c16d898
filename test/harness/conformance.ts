import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Command, Option } from 'commander';
import { toCoreError } from '../../src/errors.ts';
import { Lifecycle, untilSignalled } from '../../src/lifecycle.ts';
import { projectRoot } from '../../src/root.ts';
import { allCells, type Cell, type ClientName, clientNames } from './conformance/cells.ts';
import { makeCertificate } from './conformance/certificate.ts';
import { startConformanceCore } from './conformance/core.ts';
import { conformancePage } from './conformance/docs.ts';
import { closedGaps, compareVersions, withGaps } from './conformance/gaps.ts';
import { matrixText, namedText } from './conformance/matrix.ts';
import { type NamedResult, type RunName, runNamed, runNames } from './conformance/named-runs.ts';
import {
  newestXray,
  type Obtained,
  obtainClient,
  obtainXray,
  type Program,
  xrayVersions,
} from './conformance/programs.ts';
import { runVersion } from './conformance/run.ts';
import { startSite } from './conformance/site.ts';
import type { Bench, CellResult } from './conformance/trial.ts';

interface Options {
  xray: string[];
  protocol: string[] | undefined;
  client: ClientName[];
  list: boolean;
  newest: boolean;
  only: (RunName | 'matrix')[];
  seed: number;
  writeDocs: boolean;
  keep: boolean;
}

/** The exit code if a program cannot be had, so that nothing was tested. */
const notRunCode = 2;

function readOptions(): Options {
  const program = new Command('conformance')
    .description('Runs what Core renders on real proxies, with real clients and their share links.')
    .option('--xray <version...>', 'versions of Xray, or paths of binaries', [...xrayVersions])
    .option('--newest', 'the newest version of Xray only', false)
    .option('--protocol <prefix...>', 'only cells whose names begin so, like vless or trojan-ws')
    .addOption(
      new Option('--client <name...>', 'only these clients')
        .choices(clientNames)
        .default([...clientNames]),
    )
    .addOption(
      new Option('--only <name...>', 'only the matrix, or runs beside it')
        .choices(['matrix', ...runNames])
        .default(['matrix', ...runNames]),
    )
    .addOption(
      new Option('--seed <number>', 'of random settings').argParser(Number).default(Date.now()),
    )
    .option('--list', 'print the names of the cells and run nothing', false)
    .option('--keep', 'keep configurations and logs, and print where', false)
    .option('--write-docs', 'write docs/conformance.md', false)
    .parse();
  return program.opts<Options>();
}

async function main(): Promise<number> {
  const options = readOptions();
  const interrupted = new AbortController();
  void untilSignalled().then(() => interrupted.abort());
  const lifecycle = new Lifecycle();
  const folder = mkdtempSync(path.join(os.tmpdir(), 'core-conformance-run-'));
  lifecycle.use('folder', () => {
    if (options.keep) console.log(`configurations and logs: ${folder}`);
    else rmSync(folder, { recursive: true, force: true });
  });
  try {
    const certificate = await makeCertificate(folder);
    const site = await startSite(certificate, lifecycle);
    const cells = chosen(allCells(certificate, `127.0.0.1:${site.tlsPort}`), options.protocol);
    if (options.list) {
      for (const { name } of cells) console.log(name);
      return 0;
    }
    const programs = await obtainAll(options);
    if (programs === undefined) return notRunCode;
    const core = await startConformanceCore(lifecycle, interrupted.signal);
    const say = (line: string): void => void process.stderr.write(`conformance: ${line}\n`);
    const bench = { core, folder, certificate, open: site.open, clients: programs.clients, say };
    return await runAll({ bench, xrays: programs.xrays, cells, options }, interrupted.signal);
  } finally {
    await lifecycle.close();
  }
}

/** The newest version first, then the runs beside the matrix on it, then the older versions. */
async function runAll(
  given: { bench: Bench; xrays: readonly Program[]; cells: readonly Cell[]; options: Options },
  signal: AbortSignal,
): Promise<number> {
  const { bench, xrays, cells, options } = given;
  const [results, named]: [CellResult[], NamedResult[]] = [[], []];
  const names = runNames.filter((name) => options.only.includes(name));
  for (const [index, xray] of xrays.entries()) {
    if (options.only.includes('matrix')) {
      const startedMs = performance.now();
      results.push(...(await runVersion(bench, xray, cells)));
      bench.say(`Xray ${xray.version}: ${Math.round((performance.now() - startedMs) / 1_000)} s`);
    }
    for (const name of index === 0 ? names : []) {
      if (signal.aborted) return 1;
      named.push(await runNamed(name, { bench, xray, cells, seed: options.seed }));
    }
    if (signal.aborted) return 1;
    // After each version, so that a run that is cut off has written what it knows.
    if (options.writeDocs) writeDocs(withGaps(results), named, bench.clients);
  }
  const judged = withGaps(results);
  if (judged.length > 0) console.log(matrixText(judged));
  const closed = closedGaps(judged);
  for (const line of closed) console.log(`A known gap is closed: ${line}`);
  if (named.length > 0) console.log(namedText(named));
  const isWell =
    closed.length === 0 &&
    named.every(({ faults }) => faults.length === 0) &&
    judged.every(({ outcome }) => outcome.kind !== 'failed');
  return isWell ? 0 : 1;
}

function writeDocs(
  results: readonly CellResult[],
  named: readonly NamedResult[],
  clients: readonly { program: Program }[],
): void {
  const date = new Date().toISOString().slice(0, 10);
  const programs = clients.map(({ program }) => program);
  const page = conformancePage(results, { date, clients: programs, named });
  writeFileSync(path.join(projectRoot, 'docs', 'conformance.md'), page);
}

function chosen(cells: readonly Cell[], prefixes: readonly string[] | undefined): Cell[] {
  return cells.filter(
    ({ name }) => prefixes === undefined || prefixes.some((prefix) => name.startsWith(prefix)),
  );
}

/** All programs of the run, or nothing and a line that says why. */
async function obtainAll(
  options: Options,
): Promise<{ xrays: Program[]; clients: { name: ClientName; program: Program }[] } | undefined> {
  const xrays: Program[] = [];
  for (const version of options.newest ? [newestXray] : options.xray) {
    const program = told(await obtainXray(version));
    if (program === undefined) return undefined;
    xrays.push(program);
  }
  const clients: { name: ClientName; program: Program }[] = [];
  for (const name of options.client) {
    const program = told(await (name === 'xray' ? obtainXray(newestXray) : obtainClient(name)));
    if (program === undefined) return undefined;
    clients.push({ name, program });
  }
  xrays.sort((one, other) => compareVersions(other.version, one.version));
  return { xrays, clients };
}

function told(obtained: Obtained): Program | undefined {
  if (obtained.kind === 'program') return obtained.program;
  const why =
    obtained.kind === 'no-go'
      ? 'Go is not on the PATH, and it builds the proxies: get it at https://go.dev/dl'
      : `a program cannot be built, so nothing was tested: ${obtained.output}`;
  process.stderr.write(`conformance: ${why}\n`);
  return undefined;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (thrown: unknown) => {
    const { message, cause } = toCoreError(thrown);
    process.stderr.write(`conformance: ${cause instanceof Error ? cause.stack : message}\n`);
    process.exitCode = 1;
  },
);
