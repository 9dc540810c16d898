import type { Account } from './access.ts';
import { clickhouseFault, deniedFault } from './fault.ts';
import type { SettingRules } from './settings.ts';
import { type Token, tokenize, unquoteName, unquoteString } from './statement.ts';

/**
 * Table functions that anybody may use: they make rows of nothing, or read tables that the account
 * may read in any case. All others are refused, also those that a later version brings.
 */
const tableFunctionsAllowed = new Set([
  'generate_series',
  'generateseries',
  'merge',
  'numbers',
  'numbers_mt',
  'values',
  'view',
]);

/**
 * Kinds of functions, as `system.functions` has them, that work on their arguments alone. The
 * missing ones ask a service, read a model or a dictionary, or look into the process.
 */
const functionKindsAllowed = new Set([
  'Aggregate Functions',
  'Arithmetic',
  'Arrays',
  'Bit',
  'Bitmap',
  'Comparison',
  'Conditional',
  'Dates and Times',
  'Distance',
  'Encoding',
  'Encryption',
  'Financial',
  'Geo',
  'Geo Polygon',
  'Hash',
  'IP Address',
  'Internal',
  'JSON',
  'Logical',
  'Map',
  'Mathematical',
  'Null',
  'NumericIndexedVector',
  'Other',
  'QBit',
  'Random Number',
  'Rounding',
  'String',
  'String Replacement',
  'String Search',
  'String Splitting',
  'Time Series',
  'Time Window',
  'Tuple',
  'Type Conversion',
  'URL',
  'UUID',
]);

/** They have an allowed kind, and read a file, start a program, or tell of requests and certificates. */
const functionsRefused = ['catboostEvaluate', 'file', 'getClientHTTPHeader', 'showCertificate'];

const enginesAllowed = new Set([
  'AggregatingMergeTree',
  'Atomic',
  'CollapsingMergeTree',
  'Join',
  'Log',
  'Memory',
  'MergeTree',
  'Null',
  'ReplacingMergeTree',
  'Set',
  'StripeLog',
  'SummingMergeTree',
  'TinyLog',
  'VersionedCollapsingMergeTree',
]);

const readingVerbs = new Set([
  ...['SELECT', 'WITH', 'SHOW', 'DESCRIBE', 'DESC', 'EXISTS', 'EXPLAIN', 'USE', 'SET'],
]);
const writingVerbs = new Set([
  ...['INSERT', 'CREATE', 'ALTER', 'DROP', 'TRUNCATE', 'OPTIMIZE', 'RENAME', 'EXCHANGE'],
  ...['DELETE', 'UPDATE', 'KILL', 'CHECK', 'SYSTEM'],
]);
const kindsCreated = new Set(['TABLE', 'DATABASE', 'VIEW']);

/** Who runs a statement. */
export interface Caller {
  account: Account;
  database: string;
  /** True if nothing may be written: for the analyst, and for GET. */
  readonly: boolean;
  settings: ReadonlyMap<string, string>;
  params: ReadonlyMap<string, string>;
}

/** Judges statements and settings before the engine sees them. */
export interface Guard {
  /** @throws 452 or 115 for a setting of the request that its account may not change. */
  checkSettings(caller: Caller): void;
  /**
   * Judges a statement in the engine's own wording (`formatQuerySingleLine`), in which there are no
   * comments and each thing can be written in one way only.
   * @throws 164 READONLY, 358 INTO_OUTFILE_NOT_ALLOWED, 452 or 497 ACCESS_DENIED.
   */
  checkStatement(sql: string, caller: Caller): void;
  /** @throws if a settings clause has a setting that the account may not change, or is none. */
  readClause(clause: string, account: Account): Map<string, string>;
  /** True if a text may hold a query, or the name of a function that is refused. */
  mayReachOut(text: string): boolean;
}

/** What the guard asks the engine for when that opens. */
export interface EngineNames {
  tableFunctions: readonly string[];
  functions: readonly { name: string; kind: string; aliasOf: string }[];
}

export function createGuard(names: EngineNames, rules: SettingRules): Guard {
  const tableFunctions = new Set(
    names.tableFunctions
      .map((name) => name.toLowerCase())
      .filter((name) => !tableFunctionsAllowed.has(name)),
  );
  const functions = refusedFunctions(names.functions);
  const checkFunctions = (tokens: readonly Token[], caller: Caller): void => {
    tokens.forEach((token, at) => {
      if (token.kind !== 'word' && token.kind !== 'quoted') return;
      const name = unquoteName(token.text);
      // A function can also be named without a call: `arrayMap(f, …)`, `* APPLY f`.
      if (functions.has(name.toLowerCase())) throw functionFault(name);
      if (tokens[at + 1]?.text !== '(') return;
      if (tableFunctions.has(name.toLowerCase())) throw functionFault(name);
      if (name.toLowerCase() === 'values') checkValues(tokens, at + 2);
    });
    for (const name of identifierParams(tokens)) {
      const parts = (caller.params.get(name) ?? '').toLowerCase().split(/[^\w]+/);
      const refused = parts.find((part) => functions.has(part));
      if (refused !== undefined) throw functionFault(refused);
    }
  };
  return {
    checkSettings: (caller) => {
      for (const [name, value] of caller.settings) rules.check(caller.account, name, value);
    },
    checkStatement: (sql, caller) => {
      const tokens = [...tokenize(sql)];
      checkWording(sql, tokens);
      checkVerb(tokens, caller);
      checkStored(tokens, caller);
      checkFiles(tokens);
      checkEngines(tokens);
      checkFunctions(tokens, caller);
      for (const [name, value] of settingsIn(tokens)) rules.check(caller.account, name, value);
    },
    readClause: (clause, account) => {
      const settings = new Map(readSettings([...tokenize(clause)], 0));
      if (settings.size === 0) throw deniedFault('The settings clause cannot be read.');
      for (const [name, value] of settings) rules.check(account, name, value);
      return settings;
    },
    mayReachOut: (text) => {
      const lower = text.toLowerCase();
      const names = ['select', ...functions, ...tableFunctions];
      return names.some((name) => name !== 'null' && lower.includes(name));
    },
  };
}

function refusedFunctions(all: EngineNames['functions']): ReadonlySet<string> {
  const refused = new Set(functionsRefused.map((name) => name.toLowerCase()));
  for (const { name, kind, aliasOf } of all) {
    const internal = kind === 'Internal' && name.startsWith('__');
    if (aliasOf === '' && (!functionKindsAllowed.has(kind) || internal)) {
      refused.add(name.toLowerCase());
    }
  }
  // An alias has no kind of its own.
  for (const { name, aliasOf } of all) {
    if (refused.has(aliasOf.toLowerCase())) refused.add(name.toLowerCase());
  }
  return refused;
}

/**
 * The engine quotes each name that is not plain and leaves no comment. If anything else is left over,
 * this front and the engine may not read the text alike.
 */
function checkWording(sql: string, tokens: readonly Token[]): void {
  let end = 0;
  for (const token of tokens) {
    const between = sql.slice(end, token.start);
    const plain = token.kind === 'string' ? token.text.startsWith("'") : true;
    const ascii = token.kind === 'word' ? /^[\w.]+$/.test(token.text) : true;
    const mark = token.kind === 'mark' ? /^[\x21-\x7e]$/.test(token.text) : true;
    const comment = token.text === '/' && sql[token.end] === '/';
    if (!/^[ \n]*$/.test(between) || !plain || !ascii || !mark || comment) {
      throw deniedFault('The statement cannot be read without doubt.');
    }
    end = token.end;
  }
}

function checkVerb(tokens: readonly Token[], caller: Caller): void {
  const [first, second] = tokens;
  const verb = first?.keyword ?? '';
  const reads = readingVerbs.has(verb) || first?.text === '(';
  if (!reads && !writingVerbs.has(verb)) throw deniedFault(`${verb} statements are refused.`);
  const inserts = tokens.some((token) => token.keyword === 'INSERT' && token.depth === 0);
  if (caller.readonly && verb !== 'EXPLAIN' && (!reads || inserts)) throw readonlyFault(caller);
  if (verb === 'SET' && tokens[2]?.text !== '=') {
    throw deniedFault(`SET ${second?.keyword ?? ''} is refused.`);
  }
  if (verb === 'SYSTEM' && tokens[2]?.keyword !== 'MERGES') {
    throw deniedFault(`SYSTEM ${second?.keyword ?? ''} is refused.`);
  }
  if (verb === 'CREATE') {
    const kind = second?.keyword === 'OR' ? tokens[3] : second;
    if (!kindsCreated.has(kind?.keyword ?? '')) {
      throw deniedFault(`CREATE ${kind?.keyword ?? ''} is refused.`);
    }
  }
  if (follows(tokens, 'PARALLEL', 'WITH')) throw deniedFault('PARALLEL WITH is refused.');
}

/**
 * What a table or a view keeps is run later, with other rights than its author's: those of an insert,
 * of a merge, or of a definer. The engine takes any path for a table of the database `default`, so
 * nothing that is kept may name it.
 */
function checkStored(tokens: readonly Token[], caller: Caller): void {
  if (!writingVerbs.has(tokens[0]?.keyword ?? '')) return;
  // A database keeps no query. Core makes its own from within `default`, which is always there.
  if (tokens[1]?.keyword === 'DATABASE') return;
  const isDefault = (text: string): boolean => unquoteName(text).toLowerCase() === 'default';
  const named = tokens.some((token, at) => isDefault(token.text) && tokens[at + 1]?.text === '.');
  const given = identifierParams(tokens).some((name) =>
    /default/i.test(caller.params.get(name) ?? ''),
  );
  if (named || given || isDefault(caller.database)) {
    throw deniedFault('Statements that write are refused in the database default.');
  }
  for (const word of ['DEFINER', 'SECURITY']) {
    if (tokens.some((token) => token.keyword === word)) throw deniedFault(`${word} is refused.`);
  }
  for (const word of ['QUERY', 'REFRESH']) {
    if (follows(tokens, 'MODIFY', word)) throw deniedFault(`MODIFY ${word} is refused.`);
  }
}

function checkFiles(tokens: readonly Token[]): void {
  if (follows(tokens, 'INTO', 'OUTFILE')) {
    throw clickhouseFault(358, 'INTO_OUTFILE_NOT_ALLOWED', 'INTO OUTFILE is not allowed');
  }
  if (follows(tokens, 'FROM', 'INFILE')) throw deniedFault('FROM INFILE is refused.');
  if (follows(tokens, 'INTO', 'FUNCTION')) throw deniedFault('INSERT INTO FUNCTION is refused.');
}

function checkEngines(tokens: readonly Token[]): void {
  if (tokens[0]?.keyword !== 'CREATE') return;
  tokens.forEach((token, at) => {
    const engine = tokens[at + 2];
    if (token.keyword !== 'ENGINE' || tokens[at + 1]?.text !== '=') return;
    // A column of this name is compared with a string.
    if (engine?.kind === 'string') return;
    const name = unquoteName(engine?.text ?? '');
    if (!enginesAllowed.has(name)) throw deniedFault(`The engine ${name} is refused.`);
  });
}

/**
 * A first argument of `values` that is a string is a table's structure, and an expression in there
 * would be run without having been looked at.
 */
function checkValues(tokens: readonly Token[], at: number): void {
  const first = tokens[at];
  const literal = first?.kind === 'string' || first?.text === '(' || /^\d/.test(first?.text ?? '');
  const structure = first?.kind === 'string' ? unquoteString(first.text) : '';
  if (!literal || /default|alias|materialized|ephemeral|[^\w\s,()']/i.test(structure)) {
    throw deniedFault('values() takes a plain structure, or rows of literals.');
  }
}

/** Names of the placeholders `{name:Identifier}`. */
function identifierParams(tokens: readonly Token[]): string[] {
  return tokens.flatMap((token, at) => {
    if (token.keyword !== 'IDENTIFIER' || tokens[at - 1]?.text !== ':') return [];
    return [unquoteName(tokens[at - 2]?.text ?? '')];
  });
}

/** Each `name = value` of each settings clause, wherever in the statement it is. */
function settingsIn(tokens: readonly Token[]): [string, string][] {
  return tokens.flatMap((token, at) => {
    const clause =
      token.keyword === 'SETTINGS' ||
      (token.keyword === 'SETTING' && tokens[at - 1]?.keyword === 'MODIFY') ||
      (token.keyword === 'SET' && at === 0);
    return clause ? readSettings(tokens, at + 1) : [];
  });
}

/** Reads `name = value, …` from a token on, up to the end of what may be such a list. */
function readSettings(tokens: readonly Token[], from: number): [string, string][] {
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

/** Where the `=` is that follows a name, which may have dots; else -1. */
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

/** A literal's value; what follows it in the statement begins with a word. */
function literalOf(tokens: readonly Token[]): string {
  const [first] = tokens;
  if (first?.kind === 'string') return unquoteString(first.text);
  const end = tokens.findIndex((token, at) => at > 0 && /^[A-Za-z]/.test(token.text));
  return tokens
    .slice(0, end < 0 ? tokens.length : end)
    .map((token) => token.text)
    .join('');
}

function follows(tokens: readonly Token[], first: string, second: string): boolean {
  return tokens.some((token, at) => token.keyword === first && tokens[at + 1]?.keyword === second);
}

/** Refuses what writes: by GET, or as the analyst. */
export function readonlyFault(caller: Pick<Caller, 'account'>): Error {
  const remedy = caller.account === 'analyst' ? 'the user analyst only reads' : 'use POST';
  return clickhouseFault(
    164,
    'READONLY',
    `${caller.account}: Cannot execute query in readonly mode: ${remedy}.`,
  );
}

function functionFault(name: string): Error {
  return deniedFault(`The function ${name} is refused.`);
}
