import { faults } from './faults.ts';
import { gaps } from './gaps.ts';
import { axesOf, markOf } from './matrix.ts';
import { type NamedResult, namedRuns, type RunName } from './named-runs.ts';
import type { Program } from './programs.ts';
import type { CellResult, Letter } from './trial.ts';

const lineCharsMax = 108;

/** What a cell has to do, by the letter that it gets if it fails there. */
const steps: Record<Letter, string> = {
  a: 'Core takes the settings, and `xray run -test` takes what Core renders.',
  b: 'A client that knows nothing but the share link moves 1 MB up and 3 MB down over TCP, checked byte by byte.',
  u: 'The same client moves 64 datagrams of 1,000 bytes over UDP, there and back.',
  c: 'While the connection is still open, the bytes that came out of the proxy, its counters, the rows in ClickHouse and the counters in Postgres are the same to the byte. What a transport adds does not count.',
  d: 'Once the subscription is disabled and the new configuration runs, the open connection has ended and no new one comes through. Another user of the same inbound still connects.',
};

/** The page docs/conformance.md. Nobody edits it: a run writes it. */
export function conformancePage(
  results: readonly CellResult[],
  of: { date: string; clients: readonly Program[]; named: readonly NamedResult[] },
): string {
  const { clients } = axesOf(results);
  const engines = of.clients.map(({ name, version }) => `${name} ${version}`).join(', ');
  return `${[
    '# Conformance',
    wrapped(
      `\`npm run conformance -- --write-docs\` wrote this page on ${of.date}. It runs what Core renders on real ` +
        'proxies, with real clients. [test/harness](../test/harness/README.md#the-conformance-run) says how.',
    ),
    wrapped(
      `A row is a protocol on a transport, and a column a version of Xray on the node. Each place has the marks of the ` +
        `clients ${clients.join(', ')}, in this order (${engines}). A mark is \`ok\`, \`-\` if the client has no such ` +
        'protocol or transport, or the letter of the first step that failed:',
    ),
    Object.entries(steps)
      .map(([letter, step]) => item(`\`${letter}\`: ${step}`))
      .join('\n'),
    'A number behind the letter is that of a [known gap](#known-gaps).',
    table(results),
    '## Known gaps',
    gaps.map(({ why }, index) => item(why, `${index + 1}. `)).join('\n'),
    ...failures(results),
    ...beside(of.named),
    '## Faults',
    wrapped('What real programs showed of Core before, and what shows that it is mended.'),
    faultsText(),
  ].join('\n\n')}\n`;
}

function table(results: readonly CellResult[]): string {
  const { versions, cells, clients } = axesOf(results);
  const rows = cells.map((cell) => {
    const places = versions.map((xray) =>
      clients.map((client) => markOf(results, { cell, client, xray })).join(' '),
    );
    return `| ${[cell, ...places].join(' | ')} |`;
  });
  return [
    `| Xray | ${versions.join(' | ')} |`,
    `| --- |${' --- |'.repeat(versions.length)}`,
    ...rows,
  ].join('\n');
}

/** The failures that no gap explains, each reason once. */
function failures(results: readonly CellResult[]): string[] {
  const reasons = new Map<string, string[]>();
  for (const { cell, client, xray, outcome } of results) {
    if (outcome.kind !== 'failed') continue;
    const key = `${cell}: ${outcome.letter}`;
    reasons.set(key, [...(reasons.get(key) ?? []), `${client} on ${xray}`]);
  }
  if (reasons.size === 0) return [];
  const items = [...reasons].map(([key, where]) => item(`${key}: ${where.join(', ')}`));
  return ['## Failures', items.join('\n')];
}

/** The runs that are no cells of the matrix. */
function beside(named: readonly NamedResult[]): string[] {
  if (named.length === 0) return [];
  const items = named.map(({ name, xray, summary, faults: found }) => {
    const outcome = found.length === 0 ? 'ok' : `${found.length} faults`;
    const { shows } = namedRuns[name as RunName];
    return item(`\`${name}\`, on Xray ${xray}: ${outcome}. ${shows} ${summary}.`);
  });
  const how = '`npm run conformance -- --only NAME` runs one of them.';
  return ['## Other runs', how, items.join('\n')];
}

function faultsText(): string {
  return faults
    .map(({ fault, before, now }, index) => {
      return item(`${fault} Before: ${before} Now: ${now}`, `${index + 1}. `);
    })
    .join('\n');
}

function item(text: string, mark = '- '): string {
  return wrapped(text, mark);
}

/** Breaks a paragraph, or an item of a list, into lines that the linter takes. */
function wrapped(text: string, mark = ''): string {
  const lines: string[] = [];
  let line = mark;
  for (const [index, word] of text.split(' ').entries()) {
    const longer = index === 0 ? `${line}${word}` : `${line} ${word}`;
    if (longer.length > lineCharsMax) {
      lines.push(line);
      line = `${' '.repeat(mark.length)}${word}`;
    } else line = longer;
  }
  return [...lines, line].join('\n');
}
