import { type Token, unquoteName, unquoteString } from './tokens.ts';

/** Each `name = value` of each settings clause, anywhere in the statement. */
export function settingsIn(tokens: readonly Token[]): [string, string][] {
  return tokens.flatMap((token, at) => {
    const clause =
      token.keyword === 'SETTINGS' ||
      (token.keyword === 'SETTING' && tokens[at - 1]?.keyword === 'MODIFY') ||
      (token.keyword === 'SET' && at === 0);
    return clause ? readSettings(tokens, at + 1) : [];
  });
}

/** Reads `name = value, …` from a token on, up to the end of that list. */
export function readSettings(tokens: readonly Token[], from: number): [string, string][] {
  const settings: [string, string][] = [];
  let at = from;
  for (let equals = nameEnd(tokens, at); equals > at; equals = nameEnd(tokens, at)) {
    const name = tokens.slice(at, equals).map((token) => unquoteName(token.text));
    const depth = tokens[equals]?.depth ?? 0;
    const value: Token[] = [];
    for (at = equals + 1; at < tokens.length; at += 1) {
      const token = tokens[at] as Token;
      if (token.depth < depth || (token.text === ',' && token.depth === depth)) break;
      value.push(token);
    }
    settings.push([name.join(''), literalOf(value)]);
    if (tokens[at]?.text !== ',') break;
    at += 1;
  }
  return settings;
}

/** The place of the `=` after a name, which may have dots; -1 if there is none. */
function nameEnd(tokens: readonly Token[], from: number): number {
  for (let at = from; at < tokens.length; at += 2) {
    const kind = tokens[at]?.kind;
    if (kind !== 'word' && kind !== 'quoted') return -1;
    const next = tokens[at + 1]?.text;
    if (next === '=') return at + 1;
    if (next !== '.') return -1;
  }
  return -1;
}

/** The value of a literal. Whatever follows it in the statement begins with a word. */
function literalOf(tokens: readonly Token[]): string {
  const [first] = tokens;
  if (first?.kind === 'string') return unquoteString(first.text);
  const end = tokens.findIndex((token, at) => at > 0 && /^[A-Za-z]/.test(token.text));
  return tokens
    .slice(0, end < 0 ? tokens.length : end)
    .map((token) => token.text)
    .join('');
}
