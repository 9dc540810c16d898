import { queryBytesMax, querySizeOf } from './access.ts';
import { clickhouseFault, toFault } from './fault.ts';
import { createGuard, type EngineNames, type Guard } from './guard.ts';
import type { Scope, Sessions } from './sessions.ts';
import { createSettingRules } from './settings.ts';
import { parseStatement, type Statement } from './statement.ts';

const syntaxErrorCode = 62;

/** Asks the engine for all that it has, of which the guard allows a part. */
export async function openGuard(sessions: Sessions): Promise<Guard> {
  const rows = async (sql: string): Promise<string[][]> =>
    (await sessions.own(sql, 'JSONCompactEachRow'))
      .text()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as string[]);
  const tableFunctions = await rows('SELECT name FROM system.table_functions');
  const functions = await rows('SELECT name, categories, alias_to FROM system.functions');
  const settings = await rows(
    `SELECT name FROM system.settings UNION ALL SELECT name FROM system.merge_tree_settings
     UNION ALL SELECT arrayJoin(['disk', 'profile'])`,
  );
  const names: EngineNames = {
    tableFunctions: tableFunctions.map(([name = '']) => name),
    functions: functions.map(([name = '', kind = '', aliasOf = '']) => ({ name, kind, aliasOf })),
  };
  return createGuard(names, createSettingRules(new Set(settings.map(([name = '']) => name))));
}

/**
 * Lets the engine read a statement and write it down in its own words, judges these, and gives them
 * back to be run. So what was judged is what runs: this front need not read SQL as the engine does,
 * with its comments, quotes and escapes.
 * @throws 62 SYNTAX_ERROR, as the engine says it, or the guard's refusal.
 */
export async function judge(
  sessions: Sessions,
  guard: Guard,
  sql: string,
  scope: Scope,
): Promise<{ text: string; statement: Judged; scope: Scope }> {
  const sizeMax = Number(scope.settings.get('max_query_size') ?? querySizeOf(scope.account).value);
  if (Buffer.byteLength(sql) > sizeMax) throw querySizeFault(sizeMax);
  const text = await wordingOf(sessions, sql);
  guard.checkStatement(text, scope);
  const statement = parseStatement(text);
  if (statement.kind === 'insert') {
    throw clickhouseFault(48, 'NOT_IMPLEMENTED', 'The embedded server cannot read this INSERT.');
  }
  if (statement.kind === 'empty' || statement.kind === 'several') {
    throw clickhouseFault(62, 'SYNTAX_ERROR', 'Syntax error: not one statement');
  }
  // The engine's wording may be longer than the one that was sent.
  const settings = new Map(scope.settings);
  const textBytes = Buffer.byteLength(text) + slackBytes;
  if (textBytes > queryBytesMax) throw querySizeFault(queryBytesMax);
  if (textBytes > sizeMax) settings.set('max_query_size', String(textBytes));
  return { text, statement, scope: { ...scope, settings } };
}

type Judged = Extract<Statement, { kind: 'select' | 'other' }>;

/** For the INTO OUTFILE that is added. */
const slackBytes = 16 * 1024;

/** The engine's own refusal of a statement that is too long. */
export function querySizeFault(bytesMax: number): Error {
  return clickhouseFault(62, 'SYNTAX_ERROR', `Syntax error: Max query size exceeded (${bytesMax})`);
}

async function wordingOf(sessions: Sessions, sql: string): Promise<string> {
  try {
    return await sessions.wording(sql);
  } catch (thrown) {
    const fault = toFault(thrown);
    if (fault.code !== syntaxErrorCode) throw thrown;
    throw clickhouseFault(62, 'SYNTAX_ERROR', syntaxMessage(fault.text), { cause: thrown });
  }
}

/** The engine's message, without the query that it was asked with. */
function syntaxMessage(text: string): string {
  return text
    .replace(/^Code: 62\. DB::Exception: /, '')
    .replace(/: (In scope|while executing) [\s\S]*$/, '')
    .replace(/ \(SYNTAX_ERROR\)$/, '');
}
