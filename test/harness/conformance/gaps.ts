import type { ClientName } from './cells.ts';
import type { CellResult, Letter } from './trial.ts';

/** Something that does not work and that Core cannot change. A cell that fails so does not fail the run. */
interface Gap {
  cells: RegExp;
  clients?: readonly ClientName[];
  /** Versions of Xray that have it: from this one on, and before that one. */
  from?: string;
  before?: string;
  letters: readonly Letter[];
  why: string;
}

/** docs/conformance.md names each by its place in this list, from 1. */
export const gaps: readonly Gap[] = [
  {
    cells: /^vless-/,
    before: '26.1.13',
    letters: ['c'],
    why: 'Xray before 26.1.13 counts what a VLESS user sends over UDP twice.',
  },
  {
    cells: /^hysteria2-/,
    before: '26.4.13',
    letters: ['a', 'b', 'u', 'c'],
    why: 'Hysteria2 needs Xray 26.4.13: before that Xray counts nothing for its users, and 25.12 does not have it.',
  },
  {
    cells: /^vless-.*-reality(-vision)?$/,
    clients: ['sing-box', 'mihomo'],
    from: '26.7.11',
    letters: ['b'],
    why:
      'From 26.7.11 on REALITY refuses clients that call themselves older than Xray 26.3.27 unless ' +
      '`minClientVer` says otherwise, and sing-box and mihomo do. The cells named `any` set it to 1.0.0.',
  },
  {
    cells: /^hysteria2-/,
    clients: ['xray'],
    before: '26.5.3',
    letters: ['u'],
    why:
      'Since 1 September 2026 Xray clients from 26.5.3 on leave the size of datagrams out of their handshake ' +
      '(`OmitMaxDatagramFrameSize`). Xray before 26.5.3 on the node then sends them no UDP of Hysteria2.',
  },
  {
    cells: /^hysteria2-odd-password$/,
    clients: ['mihomo'],
    letters: ['b'],
    why:
      'mihomo takes the password of a Hysteria2 link as it is percent-encoded there (`User.String()` in its ' +
      '`common/convert/converter.go`). Its profile has the right one.',
  },
  {
    cells: /^vless-xhttp-(session|padding|uplink)$/,
    before: '26.3.27',
    letters: ['b'],
    why: 'Xray 25.12 does not have these settings of XHTTP, and ignores them.',
  },
];

/** Turns failures that a gap explains into that gap. Everything else stays. */
export function withGaps(results: readonly CellResult[]): CellResult[] {
  return results.map((result) => {
    const { outcome } = result;
    if (outcome.kind !== 'failed') return result;
    const { letter } = outcome;
    const index = gaps.findIndex((gap) => explains(gap, result, letter));
    return index === -1 ? result : { ...result, outcome: { kind: 'gap', letter, gap: index + 1 } };
  });
}

/** What works although a gap says that it does not: the list is out of date then, so the run fails. */
export function closedGaps(results: readonly CellResult[]): string[] {
  return results.flatMap((result) => {
    if (result.outcome.kind !== 'ok') return [];
    const index = gaps.findIndex((gap) => covers(gap, result));
    const { cell, client, xray } = result;
    return index === -1 ? [] : [`${cell}, ${client}, Xray ${xray}: ok, but gap ${index + 1}`];
  });
}

function explains(gap: Gap, result: CellResult, letter: Letter): boolean {
  return gap.letters.includes(letter) && covers(gap, result);
}

function covers(gap: Gap, { cell, client, xray }: CellResult): boolean {
  return (
    gap.cells.test(cell) &&
    (gap.clients?.includes(client) ?? true) &&
    (gap.from === undefined || compareVersions(xray, gap.from) >= 0) &&
    (gap.before === undefined || compareVersions(xray, gap.before) < 0)
  );
}

/** Below 0 if the first version is older. */
export function compareVersions(one: string, other: string): number {
  const [left, right] = [one, other].map((version) => version.split('.').map(Number));
  for (let place = 0; place < 3; place += 1) {
    const difference = (left?.[place] ?? 0) - (right?.[place] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
