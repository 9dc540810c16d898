import type { Account } from './access.ts';
import type { Scope } from './connections.ts';
import { clickhouseFault, deniedFault } from './fault.ts';
import type { FunctionRules } from './function-rules.ts';
import type { SettingRules } from './setting-rules.ts';
import { readSettings, settingsIn } from './settings-clause.ts';
import { follows, type Token, tokenize, unquoteName, unquoteString } from './tokens.ts';

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

/** Judges statements and settings before the engine runs them. */
export interface Guard {
  /** @throws 452 or 115 for a setting of the request that its account may not change. */
  checkSettings(scope: Scope): void;
  /**
   * Judges a statement in the engine's own words (`formatQuerySingleLine`): they have no comments, and
   * there is only one way to write each thing.
   * @throws 164 READONLY, 358 INTO_OUTFILE_NOT_ALLOWED, 452 or 497 ACCESS_DENIED.
   */
  checkStatement(sql: string, scope: Scope): void;
  /** @throws if the text is no settings clause, or has a setting that the account may not change. */
  readClause(clause: string, account: Account): Map<string, string>;
  /** True if a text may hold a query, or the name of a function that is refused. */
  mayReachOut(text: string): boolean;
}

export function createGuard(functions: FunctionRules, settings: SettingRules): Guard {
  const { functionsRefused, tableFunctionsRefused } = functions;
  const checkSettings = (account: Account, given: Iterable<[string, string]>): void => {
    for (const [name, value] of given) settings.check(account, name, value);
  };
  const checkFunctions = (tokens: readonly Token[], scope: Scope): void => {
    tokens.forEach((token, at) => {
      if (token.kind !== 'word' && token.kind !== 'quoted') return;
      const name = unquoteName(token.text);
      // A function can also be named without a call: `arrayMap(f, …)`, `* APPLY f`.
      if (functionsRefused.has(name.toLowerCase())) throw functionFault(name);
      if (tokens[at + 1]?.text !== '(') return;
      if (tableFunctionsRefused.has(name.toLowerCase())) throw functionFault(name);
      if (name.toLowerCase() === 'values') checkValues(tokens, at + 2);
    });
    for (const name of identifierParams(tokens)) {
      const parts = (scope.params.get(name) ?? '').toLowerCase().split(/[^\w]+/);
      const refused = parts.find((part) => functionsRefused.has(part));
      if (refused !== undefined) throw functionFault(refused);
    }
  };
  return {
    checkSettings: ({ account, settings }) => checkSettings(account, settings),
    checkStatement: (sql, scope) => {
      const tokens = [...tokenize(sql)];
      checkWording(sql, tokens);
      checkVerb(tokens, scope);
      checkStored(tokens, scope);
      checkFiles(tokens);
      checkEngines(tokens);
      checkFunctions(tokens, scope);
      checkSettings(scope.account, settingsIn(tokens));
    },
    readClause: (clause, account) => {
      const given = new Map(readSettings([...tokenize(clause)], 0));
      if (given.size === 0) throw deniedFault('The settings clause cannot be read.');
      checkSettings(account, given);
      return given;
    },
    mayReachOut: (text) => {
      const lower = text.toLowerCase();
      const names = ['select', ...functionsRefused, ...tableFunctionsRefused];
      return names.some((name) => name !== 'null' && lower.includes(name));
    },
  };
}

/**
 * The engine quotes each name that is not plain, and leaves no comment. If the text has anything else, the
 * front and the engine might read it differently.
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
      throw deniedFault('The statement can be read in more than one way.');
    }
    end = token.end;
  }
}

function checkVerb(tokens: readonly Token[], scope: Scope): void {
  const [first, second] = tokens;
  const verb = first?.keyword ?? '';
  const reads = readingVerbs.has(verb) || first?.text === '(';
  if (!reads && !writingVerbs.has(verb)) throw deniedFault(`${verb} statements are refused.`);
  const inserts = tokens.some((token) => token.keyword === 'INSERT' && token.depth === 0);
  if (scope.readonly && verb !== 'EXPLAIN' && (!reads || inserts)) throw readonlyFault(scope);
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
 * An expression that a table or a view stores runs later, with other rights than its author's: those of an
 * insert, of a merge, or of a definer. In the database `default` the engine takes any path for a table, so
 * no stored expression may name that database.
 */
function checkStored(tokens: readonly Token[], scope: Scope): void {
  if (!writingVerbs.has(tokens[0]?.keyword ?? '')) return;
  // A database stores no expression. Core creates its own from `default`, the only one that always exists.
  if (tokens[1]?.keyword === 'DATABASE') return;
  const isDefault = (text: string): boolean => unquoteName(text).toLowerCase() === 'default';
  const named = tokens.some((token, at) => isDefault(token.text) && tokens[at + 1]?.text === '.');
  const given = identifierParams(tokens).some((name) =>
    /default/i.test(scope.params.get(name) ?? ''),
  );
  if (named || given || isDefault(scope.database)) {
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
    // This is a column named engine that is compared with a string.
    if (engine?.kind === 'string') return;
    const name = unquoteName(engine?.text ?? '');
    if (!enginesAllowed.has(name)) throw deniedFault(`The engine ${name} is refused.`);
  });
}

/**
 * If the first argument of `values` is a string, it is the structure of a table. The engine would run an
 * expression in there, which nobody has judged.
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

/** Refuses a statement that writes by GET or as the analyst. */
export function readonlyFault(scope: Pick<Scope, 'account'>): Error {
  const remedy = scope.account === 'analyst' ? 'the user analyst only reads' : 'use POST';
  return clickhouseFault(
    164,
    'READONLY',
    `${scope.account}: Cannot execute query in readonly mode: ${remedy}.`,
  );
}

function functionFault(name: string): Error {
  return deniedFault(`The function ${name} is refused.`);
}
