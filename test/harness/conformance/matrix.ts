import { clientNames } from './cells.ts';
import type { NamedResult } from './named-runs.ts';
import type { CellResult } from './trial.ts';

/** Columns between two versions in the terminal, and between two marks. */
const markChars = 4;

/** The matrix for a terminal: a row for each cell, the marks of all clients for each version, reasons below. */
export function matrixText(results: readonly CellResult[]): string {
  const { versions, cells, clients } = axesOf(results);
  const nameChars = Math.max(0, ...cells.map((cell) => cell.length)) + 2;
  const versionChars = Math.max(12, clients.length * markChars + 2);
  const head = ['', ...versions].map((text, at) =>
    text.padEnd(at === 0 ? nameChars : versionChars),
  );
  const lines = cells.map((cell) => {
    const marks = versions.map((xray) =>
      clients
        .map((client) => markOf(results, { cell, client, xray }).padEnd(markChars))
        .join('')
        .padEnd(versionChars),
    );
    return `${cell.padEnd(nameChars)}${marks.join('')}`;
  });
  const reasons = results.flatMap(({ cell, client, xray, outcome }) =>
    outcome.kind === 'failed'
      ? [`${cell}, ${client}, Xray ${xray}: ${outcome.letter}: ${outcome.reason}`]
      : [],
  );
  const legend = `Marks: ${clients.join(', ')}, in this order.`;
  return [head.join(''), ...lines, legend, ...reasons].map((line) => line.trimEnd()).join('\n');
}

/** The runs beside the matrix, for a terminal. */
export function namedText(results: readonly NamedResult[]): string {
  return results
    .flatMap(({ name, xray, summary, faults }) => [
      `${name} on Xray ${xray}: ${faults.length === 0 ? 'ok' : `${faults.length} faults`}: ${summary}`,
      ...faults.map((fault) => `  ${fault}`),
    ])
    .join('\n');
}

/** Versions and clients of the results, and the cells in the order that they were run in. */
export function axesOf(results: readonly CellResult[]) {
  return {
    versions: [...new Set(results.map(({ xray }) => xray))],
    cells: [...new Set(results.map(({ cell }) => cell))],
    clients: clientNames.filter((name) => results.some(({ client }) => client === name)),
  };
}

/** `ok`, `-` if the client has no such cell, the letter of a failure, or that with the number of its gap. */
export function markOf(
  results: readonly CellResult[],
  of: { cell: string; client: string; xray: string },
): string {
  const found = results.find(
    ({ cell, client, xray }) => cell === of.cell && client === of.client && xray === of.xray,
  );
  switch (found?.outcome.kind) {
    case undefined:
      return '';
    case 'ok':
      return 'ok';
    case 'missing':
      return '-';
    case 'failed':
      return found.outcome.letter;
    case 'gap':
      return `${found.outcome.letter}${found.outcome.gap}`;
  }
}
