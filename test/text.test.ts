import fc from 'fast-check';
import t from 'tap';
import { isAddress, isHost } from '../src/contract/fields.ts';
import {
  escapedJson,
  hiddenCharacter,
  hiddenFault,
  jsonText,
  printable,
  printableLines,
} from '../src/text.ts';
import { hiddenCharacters } from './support/hidden-characters.ts';

t.test('every class of hidden characters is found, shown and escaped', async (t) => {
  for (const [name, character] of Object.entries(hiddenCharacters)) {
    const text = `ab${character}c`;
    t.same(hiddenCharacter(text), { name, position: 3 }, name);
    t.match(hiddenFault(text), `${name} (it is at place 3)`);
    t.match(printable(text), /^ab\\(x[0-9a-f]{2}|u[0-9a-f]{4}|u\{[0-9a-f]{5}\})c$/);
    const json = jsonText({ [text]: [text] });
    t.match(json, /^[ -~]+$/);
    t.same(JSON.parse(json), { [text]: [text] }, 'the JSON says the same');
  }
});

t.test('visible text stays as it is', async (t) => {
  for (const text of ['', 'fra-1', 'Zürich 東京 Тест', '🇩🇪 flag', 'a\\x1b', 'e\u0301']) {
    t.equal(hiddenCharacter(text), undefined);
    t.equal(printable(text), text);
    t.equal(printableLines(text), text);
    t.equal(jsonText(text), JSON.stringify(text));
  }
});

t.test('line feeds stay only in text of several lines', async (t) => {
  t.equal(printableLines('a\u001b[2J\nb\r\n'), 'a\\x1b[2J\nb\\x0d\n');
  t.equal(printable('a\nb'), 'a\\x0ab');
  t.equal(escapedJson('[1,\n"\u009b"]\n'), '[1,\n"\\u009b"]\n');
});

t.test('JSON of any text parses to the same text', async () => {
  const texts = fc.string({ unit: 'binary', maxLength: 50 });
  fc.assert(fc.property(texts, (text) => JSON.parse(jsonText(text)) === text));
  fc.assert(fc.property(texts, (text) => hiddenCharacter(printable(text)) === undefined));
});

t.test('hosts and addresses', async (t) => {
  const long = `${'a'.repeat(63)}.`.repeat(4);
  const addresses = ['192.0.2.1', '2001:db8::1', '::1', '::ffff:192.0.2.1'];
  for (const given of addresses) t.ok(isAddress(given) && isHost(given), given);
  const names = ['localhost', 'fra-1.example.net', 'FRA-1.Example.NET', 'xn--mnchen-3ya.example'];
  const oddNames = ['1.example', 'a', '3com.com', long.slice(0, 253 - 2)];
  for (const given of [...names, ...oddNames]) t.ok(isHost(given) && !isAddress(given), given);
  const neither = [
    ...[
      '',
      ' ',
      '.',
      'a..b',
      'a.',
      '.a',
      '-a',
      'a-',
      'a_b',
      'a b',
      'münchen.example',
      'a/b',
      'a:80',
    ],
    ...['https://fra-1.example.net/', '[::1]', 'fe80::1%eth0', '1.2.3', '256.1.1.1', '1.2.3.4.5'],
    ...[
      'not an ip',
      '1.2.3.4\r\nX: y',
      'a\u0000',
      'a\u202eb',
      'a\u200bb',
      'user@host',
      '0x7f.1',
      '127.0.0.0x1',
    ],
    ...[`${'a'.repeat(64)}.b`, `${long}a`, '１２７.0.0.1', 'a\n'],
  ];
  for (const given of neither) t.notOk(isHost(given) || isAddress(given), JSON.stringify(given));
});
