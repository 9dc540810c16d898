import { sqlName, sqlString } from '../../clickhouse-sql.ts';
import { deniedFault, syntaxFault } from './fault.ts';
import { type Token, tokenize, unquoteName, unquoteString } from './tokens.ts';

/** What the front has to do with a statement. Offsets count in the text that was parsed. */
export type Statement =
  | { kind: 'empty' }
  /** Several statements in one text: ClickHouse's HTTP interface refuses them. */
  | { kind: 'several'; offset: number }
  /** A SELECT: its result goes through a file. INTO OUTFILE can be put at `into`. */
  | { kind: 'select'; into: number; end: number; format: string | undefined }
  /** An INSERT with rows after the statement, from `dataStart` on. */
  | InsertStatement
  /** Everything else. */
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

/**
 * Finds out what a statement is. The engine decides whether it is right. Text after an INSERT's FORMAT or
 * VALUES is not read here, so it may be binary.
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

/** Undefined for an INSERT without rows of its own, such as INSERT … SELECT. */
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
  // ClickHouse skips exactly this: blanks, then one line end. Everything after it is data.
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

/**
 * The target of an INSERT in the front's own words, so that only names reach the engine: a table, with or
 * without its database, or `FUNCTION null('…')`.
 * @throws 497 ACCESS_DENIED for any other function, 62 for anything but names.
 */
export function insertTarget(statement: InsertStatement): string {
  const tokens = [...tokenize(statement.target)];
  const names = tokens.filter((_, at) => at % 2 === 0);
  const [first, second, literal, close] = tokens;
  if (statement.isFunction) {
    const call = second?.text === '(' && close?.text === ')' && tokens.length === 4;
    if (first?.keyword !== 'NULL' || !call || literal?.kind !== 'string') {
      throw deniedFault(`INSERT INTO FUNCTION ${first?.text} is refused.`);
    }
    return `null(${sqlString(unquoteString(literal.text))})`;
  }
  const dots = tokens.every((token, at) => at % 2 === 0 || token.text === '.');
  const named = names.every((token) => token.kind === 'word' || token.kind === 'quoted');
  if (!dots || !named || names.length > 2 || tokens.length % 2 === 0) {
    throw syntaxFault('Syntax error: the INSERT names no table');
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
