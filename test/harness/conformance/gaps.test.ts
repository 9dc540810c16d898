import t from 'tap';
import { judgeBytes } from './bytes.ts';
import { conformancePage } from './docs.ts';
import { closedGaps, compareVersions, withGaps } from './gaps.ts';
import { matrixText, namedText } from './matrix.ts';
import type { CellResult, Letter } from './trial.ts';

const failed = (
  cell: string,
  client: CellResult['client'],
  xray: string,
  letter: Letter,
): CellResult => ({ cell, client, xray, outcome: { kind: 'failed', letter, reason: 'because' } });

t.test('versions are compared by their numbers', async (t) => {
  t.ok(compareVersions('26.4.9', '26.4.13') < 0);
  t.ok(compareVersions('26.10.1', '26.9.30') > 0);
  t.equal(compareVersions('26.7.28', '26.7.28'), 0);
});

t.test('a gap explains its own cells, clients, versions and letters only', async (t) => {
  const kinds = (results: CellResult[]) => withGaps(results).map(({ outcome }) => outcome.kind);
  const cell = 'vless-raw-reality';
  t.same(kinds([failed(cell, 'mihomo', '26.7.11', 'b')]), ['gap']);
  const others = [
    failed(cell, 'xray', '26.7.11', 'b'),
    failed(cell, 'mihomo', '26.6.27', 'b'),
    failed(cell, 'mihomo', '26.7.11', 'c'),
    failed('vless-raw-reality-any', 'mihomo', '26.7.11', 'b'),
  ];
  t.same(kinds(others), ['failed', 'failed', 'failed', 'failed']);
});

t.test('a gap that is closed is a failure of the run', async (t) => {
  const works = (cell: string, client: CellResult['client'], xray: string): CellResult => {
    return { cell, client, xray, outcome: { kind: 'ok' } };
  };
  t.same(closedGaps([works('hysteria2-odd-password', 'mihomo', '26.7.28')]), [
    'hysteria2-odd-password, mihomo, Xray 26.7.28: ok, but gap 5',
  ]);
  t.same(closedGaps([works('vless-raw-reality', 'sing-box', '26.7.11')]).length, 1);
  t.same(closedGaps([works('hysteria2-quic-tls', 'xray', '26.4.17')]).length, 1);
  const others = [
    works('vless-raw-reality', 'sing-box', '26.6.27'),
    works('hysteria2-odd-password', 'sing-box', '26.7.28'),
    works('hysteria2-quic-tls', 'xray', '26.5.3'),
    failed('hysteria2-odd-password', 'mihomo', '26.7.28', 'b'),
  ];
  t.same(closedGaps(withGaps(others)), []);
});

t.test('bytes must agree exactly', async (t) => {
  const sent = { up: 10, down: 20 };
  t.equal(judgeBytes({ sent, counted: sent, row: sent }), undefined);
  t.match(
    judgeBytes({ sent, counted: { up: 9, down: 20 }, row: { up: 9, down: 20 } }),
    /9 bytes up/,
  );
  t.match(
    judgeBytes({ sent, counted: { up: 10, down: 21 }, row: { up: 10, down: 21 } }),
    /down of 20/,
  );
  t.match(judgeBytes({ sent, counted: sent, row: { up: 10, down: 0 } }), /Core has 0 bytes down/);
});

t.test('the matrix and the page show each mark', async (t) => {
  const results = withGaps([
    { cell: 'vmess-raw-none', client: 'xray', xray: '26.7.28', outcome: { kind: 'ok' } },
    failed('vless-raw-reality', 'mihomo', '26.7.28', 'b'),
    failed('trojan-raw-tls', 'xray', '26.7.28', 'd'),
  ]);
  const text = matrixText(results);
  t.match(text, /vmess-raw-none +ok/);
  t.match(text, /vless-raw-reality +b3/);
  t.match(text, /trojan-raw-tls, xray, Xray 26\.7\.28: d: because/);
  const clients = [{ name: 'xray' as const, version: '26.7.28', file: '' }];
  const named = [{ name: 'rules', xray: '26.7.28', summary: '9 samples', faults: ['one'] }];
  t.match(namedText(named), /rules on Xray 26\.7\.28: 1 faults: 9 samples\n {2}one/);
  const page = conformancePage(results, { date: '2026-11-30', clients, named });
  t.match(page, /- `rules`, on Xray 26\.7\.28: 1 faults/);
  t.match(page, /\| trojan-raw-tls \| d +\|/);
  t.match(page, /## Failures\n\n- trojan-raw-tls: d: xray on 26\.7\.28/);
  t.ok(page.split('\n').every((line) => line.length <= 110));
});
