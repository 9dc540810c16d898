import { sqlName, sqlString } from '../../clickhouse-sql.ts';
import { clickhouseFault } from './fault.ts';

/** What the front must do with a statement. Offsets are into the text that was parsed. */
export type Statement =
  | { kind: 'empty' }
  /** Several statements at once, which ClickHouse's HTTP interface refuses. */
  | { kind: 'several'; offset: number }
  /** A SELECT: its result goes through a file. `into` is where INTO OUTFILE can be put. */
  | { kind: 'select'; into: number; end: number; format: string | undefined }
  /** An INSERT whose rows follow the statement, from `dataStart` on. */
  | InsertStatement
  /** Everything else: handed to the engine as it is. */
  | { kind: 'other'; verb: string; end: number; format: string | undefined };

export interface InsertStatement {
  kind: 'insert';
  /** The table as written, `db.table` or `FUNCTION f(…)`. */
  target: string;
  isFunction: boolean;
  /** The column list as written, without its brackets. */
  columns: string | undefined;
  /** The text of a SETTINGS clause. */
  settings: string | undefined;
  format: string;
  dataStart: number;
}

export interface Token {
  kind: 'word' | 'quoted' | 'string' | 'mark';
  text: string;
  /** Upper case for words, so that keywords compare. */
  keyword: string;
  start: number;
  end: number;
  /** Open brackets around the token. */
  depth: number;
}

const spacePattern = /(?:\s+|--[^\n]*|#[ !][^\n]*|\/\*[\s\S]*?(?:\*\/|$))+/y;
const wordPattern = /[\w$\u0080-\uffff]+/y;
const heredocPattern = /\$\w*\$/y;
const heredocsPattern = /\$(?=(\w*\$))/g;

/** Splits SQL into tokens, lazily: what follows an INSERT's FORMAT is not SQL. */
export function* tokenize(sql: string): Generator<Token, undefined> {
  let depth = 0;
  const closeOf = heredocCloser(sql);
  for (let start = matchEnd(spacePattern, sql, 0); start < sql.length; ) {
    const { kind, end } = scanToken(sql, start, closeOf);
    const text = sql.slice(start, end);
    if (text === ')' || text === ']' || text === '}') depth -= 1;
    yield { kind, text, keyword: kind === 'word' ? text.toUpperCase() : '', start, end, depth };
    if (text === '(' || text === '[' || text === '{') depth += 1;
    start = matchEnd(spacePattern, sql, end);
  }
  return undefined;
}

/**
 * Where the text of a heredoc ends, for tags in the order in which they come; else -1. All tags are
 * found in one go: looking through the rest of the text for each one that nothing closes took 228 s
 * for 60,000 of them, in which the front answered nobody.
 */
function heredocCloser(sql: string): (tag: string, from: number) => number {
  let places: Map<string, { starts: number[]; next: number }> | undefined;
  return (tag, from) => {
    if (places === undefined) {
      places = new Map();
      for (const { 1: rest = '', index } of sql.matchAll(heredocsPattern)) {
        const known = places.get(`$${rest}`);
        if (known === undefined) places.set(`$${rest}`, { starts: [index], next: 0 });
        else known.starts.push(index);
      }
    }
    const place = places.get(tag);
    if (place === undefined) return -1;
    while ((place.starts[place.next] ?? Infinity) < from) place.next += 1;
    return place.starts[place.next] ?? -1;
  };
}

function scanToken(
  sql: string,
  start: number,
  closeOf: (tag: string, from: number) => number,
): { kind: Token['kind']; end: number } {
  const first = sql[start];
  if (first === "'") return { kind: 'string', end: quotedEnd(sql, start, first) };
  if (first === '`' || first === '"') return { kind: 'quoted', end: quotedEnd(sql, start, first) };
  const heredoc = matchEnd(heredocPattern, sql, start);
  if (heredoc > start) {
    const close = closeOf(sql.slice(start, heredoc), heredoc);
    if (close >= 0) return { kind: 'string', end: close + heredoc - start };
  }
  const word = matchEnd(wordPattern, sql, start);
  return word > start ? { kind: 'word', end: word } : { kind: 'mark', end: start + 1 };
}

function matchEnd(pattern: RegExp, sql: string, start: number): number {
  pattern.lastIndex = start;
  return start + (pattern.exec(sql)?.[0].length ?? 0);
}

/** End of a quoted token. A backslash or a doubled quote escapes; one that never ends takes the rest. */
function quotedEnd(sql: string, start: number, quote: string): number {
  for (let at = start + 1; at < sql.length; at += 1) {
    if (sql[at] === '\\') at += 1;
    else if (sql[at] === quote) {
      if (sql[at + 1] !== quote) return at + 1;
      at += 1;
    }
  }
  return sql.length;
}

/**
 * Finds out what a statement is, without judging whether it is right: the engine does that. Text
 * beyond an INSERT's FORMAT or VALUES is not looked at, so it may be binary.
 */
export function parseStatement(sql: string): Statement {
  const tokens = tokenize(sql);
  const first = tokens.next().value;
  if (first === undefined) return { kind: 'empty' };
  if (first.keyword === 'INSERT') {
    const insert = parseInsert(sql, tokens);
    if (insert !== undefined) return insert;
  }
  return parseWhole(sql);
}

/** Undefined for an INSERT that brings no rows of its own, such as INSERT … SELECT. */
function parseInsert(sql: string, tokens: Iterator<Token>): InsertStatement | undefined {
  const next = (): Token | undefined => {
    const result = tokens.next();
    return result.done ? undefined : result.value;
  };
  let token = next();
  if (token?.keyword === 'INTO') token = next();
  if (token?.keyword === 'TABLE') token = next();
  const isFunction = token?.keyword === 'FUNCTION';
  if (isFunction) token = next();
  if (token === undefined) return undefined;

  const targetStart = token.start;
  let targetEnd = token.end;
  for (token = next(); token?.text === '.'; token = next()) {
    targetEnd = next()?.end ?? targetEnd;
  }
  const bracket = (): { start: number; end: number } | undefined => {
    if (token?.text !== '(') return undefined;
    const { start, depth } = token;
    let { end } = token;
    for (token = next(); token !== undefined; token = next()) {
      end = token.end;
      if (token.text === ')' && token.depth === depth) break;
    }
    token = next();
    return { start, end };
  };
  if (isFunction) targetEnd = bracket()?.end ?? targetEnd;
  const list = bracket();
  const columns = list === undefined ? undefined : sql.slice(list.start + 1, list.end - 1);

  let settings: string | undefined;
  if (token?.keyword === 'SETTINGS') {
    const settingsStart = token.end;
    for (token = next(); token !== undefined; token = next()) {
      if (/^(FORMAT|VALUES|SELECT|WITH|FROM)$/.test(token.keyword)) break;
    }
    settings = sql.slice(settingsStart, token?.start).trim();
  }
  const shared = { kind: 'insert', isFunction, columns, settings } as const;
  const target = sql.slice(targetStart, targetEnd);
  if (token?.keyword === 'VALUES') {
    return { ...shared, target, format: 'Values', dataStart: token.end };
  }
  if (token?.keyword !== 'FORMAT') return undefined;
  const format = next();
  if (format?.kind !== 'word') return undefined;
  // Exactly what ClickHouse skips: blanks, then one line end. Anything after it is data.
  const skipped = /[ \t\f]*\r?\n?/y;
  skipped.lastIndex = format.end;
  const dataStart = format.end + (skipped.exec(sql)?.[0].length ?? 0);
  return { ...shared, target, format: format.text, dataStart };
}

function parseWhole(sql: string): Statement {
  let first: Token | undefined;
  let last: Token | undefined;
  let semicolon: Token | undefined;
  let insert = false;
  let outfile = false;
  /** The last FORMAT clause: valid while only its own SETTINGS clause follows. */
  let clause: { start: number; name: string } | undefined;
  let pending: Token | undefined;
  for (const token of tokenize(sql)) {
    if (semicolon !== undefined) return { kind: 'several', offset: token.start };
    if (token.text === ';' && token.depth === 0) {
      semicolon = token;
      continue;
    }
    first ??= token;
    if (pending !== undefined) {
      const named = token.kind === 'word' || token.kind === 'quoted';
      clause = named ? { start: pending.start, name: unquoteName(token.text) } : undefined;
      pending = undefined;
    } else if (token.depth === 0 && token.keyword === 'FORMAT' && last?.keyword !== 'AS') {
      pending = token;
    } else if (clause !== undefined && last !== undefined && !settingsMayHold(last, token)) {
      clause = undefined;
    }
    if (token.depth === 0 && token.keyword === 'INSERT') insert = true;
    if (token.depth === 0 && token.keyword === 'OUTFILE') outfile = true;
    last = token;
  }
  if (first === undefined || last === undefined) return { kind: 'empty' };
  const end = last.end;
  const format = clause?.name;
  const reads = /^(SELECT|WITH|FROM)$/.test(first.keyword) || first.text === '(';
  if (reads && !insert && !outfile) {
    return { kind: 'select', into: clause?.start ?? end, end, format };
  }
  return { kind: 'other', verb: first.keyword, end, format };
}

/** Whether a token after `FORMAT name` can still belong to a trailing `SETTINGS a = 1, b = 2`. */
function settingsMayHold(before: Token, token: Token): boolean {
  if (token.keyword === 'SETTINGS' || token.depth > 0) return true;
  if (token.kind === 'mark') return /^[=,.\-()[\]{}]$/.test(token.text);
  return before.keyword === 'SETTINGS' || before.kind === 'mark';
}

/** The name that an identifier token stands for. */
export function unquoteName(token: string): string {
  const quote = token[0];
  if (quote !== '`' && quote !== '"') return token;
  return token
    .slice(1, -1)
    .replaceAll(quote + quote, quote)
    .replace(/\\(.)/gs, '$1');
}

/** What a string literal in single quotes stands for, but for escapes such as `\\n`. */
export function unquoteString(token: string): string {
  return token.slice(1, -1).replaceAll("''", "'").replace(/\\(.)/gs, '$1');
}

/**
 * The target of an INSERT in this front's own wording, so that nothing reaches the engine but names:
 * a table, with or without its database, or `FUNCTION null('…')`.
 * @throws 497 ACCESS_DENIED for any other function, 62 for what is no name.
 */
export function insertTarget(statement: InsertStatement): string {
  const tokens = [...tokenize(statement.target)];
  const names = tokens.filter((_, at) => at % 2 === 0);
  const [first, second, literal, close] = tokens;
  if (statement.isFunction) {
    const call = second?.text === '(' && close?.text === ')' && tokens.length === 4;
    if (first?.keyword !== 'NULL' || !call || literal?.kind !== 'string') {
      throw clickhouseFault(
        497,
        'ACCESS_DENIED',
        `INSERT INTO FUNCTION ${first?.text} is refused.`,
      );
    }
    return `null(${sqlString(unquoteString(literal.text))})`;
  }
  const dots = tokens.every((token, at) => at % 2 === 0 || token.text === '.');
  const named = names.every((token) => token.kind === 'word' || token.kind === 'quoted');
  if (!dots || !named || names.length > 2 || tokens.length % 2 === 0) {
    throw clickhouseFault(62, 'SYNTAX_ERROR', 'Syntax error: the INSERT names no table');
  }
  return names.map((token) => sqlName(unquoteName(token.text))).join('.');
}

/** The names in an INSERT's column list; undefined for forms such as `* EXCEPT (a)`. */
export function columnNames(list: string): string[] | undefined {
  const names: string[] = [];
  let name = '';
  for (const token of tokenize(list)) {
    if (token.text === ',') {
      if (name === '') return undefined;
      names.push(name);
      name = '';
    } else if (token.text === '.') name += '.';
    else if (token.kind === 'word' || token.kind === 'quoted') {
      if (name !== '' && !name.endsWith('.')) return undefined;
      name += unquoteName(token.text);
    } else return undefined;
  }
  if (name !== '') names.push(name);
  return names.length === 0 ? undefined : names;
}
