import { queryBytesMax, querySizeOf } from './access.ts';
import type { Connections, Scope } from './connections.ts';
import { clickhouseFault, syntaxErrorCode, syntaxFault, toFault } from './fault.ts';
import { createFunctionRules } from './function-rules.ts';
import { createGuard, type Guard } from './guard.ts';
import { createSettingRules } from './setting-rules.ts';
import { parseStatement, type Statement } from './statement.ts';

/** Asks the engine for all names that it has. The guard allows a part of them. */
export async function openGuard(connections: Connections): Promise<Guard> {
  const rows = async (sql: string): Promise<string[][]> =>
    (await connections.own(sql, 'JSONCompactEachRow'))
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
  return createGuard(
    createFunctionRules({
      tableFunctions: tableFunctions.map(([name = '']) => name),
      functions: functions.map(([name = '', kind = '', aliasOf = '']) => ({ name, kind, aliasOf })),
    }),
    createSettingRules(new Set(settings.map(([name = '']) => name))),
  );
}

/**
 * Makes the engine read a statement and write it in its own words, judges these words, and returns them.
 * Only they are run. So what was judged is what runs, and the front need not read comments, quotes and
 * escapes as the engine does.
 * @throws 62 SYNTAX_ERROR with the engine's message, or the guard's refusal.
 */
export async function judge(
  connections: Connections,
  guard: Guard,
  sql: string,
  scope: Scope,
): Promise<{ text: string; statement: Judged; scope: Scope }> {
  const sizeMax = Number(scope.settings.get('max_query_size') ?? querySizeOf(scope.account).value);
  if (Buffer.byteLength(sql) > sizeMax) throw querySizeFault(sizeMax);
  const text = await wordingOf(connections, sql);
  guard.checkStatement(text, scope);
  const statement = parseStatement(text);
  if (statement.kind === 'insert') {
    throw clickhouseFault(48, 'NOT_IMPLEMENTED', 'The embedded server cannot read this INSERT.');
  }
  if (statement.kind === 'empty' || statement.kind === 'several') {
    throw syntaxFault('Syntax error: not one statement');
  }
  // The engine's words may be longer than those that were sent.
  const settings = new Map(scope.settings);
  const textBytes = Buffer.byteLength(text) + slackBytes;
  if (textBytes > queryBytesMax) throw querySizeFault(queryBytesMax);
  if (textBytes > sizeMax) settings.set('max_query_size', String(textBytes));
  return { text, statement, scope: { ...scope, settings } };
}

type Judged = Extract<Statement, { kind: 'select' | 'other' }>;

/** Room for the INTO OUTFILE that results.ts adds. */
const slackBytes = 16 * 1024;

/** A statement that is too long, in the engine's own words. */
export function querySizeFault(bytesMax: number): Error {
  return syntaxFault(`Syntax error: Max query size exceeded (${bytesMax})`);
}

async function wordingOf(connections: Connections, sql: string): Promise<string> {
  try {
    return await connections.wording(sql);
  } catch (thrown) {
    const fault = toFault(thrown);
    if (fault.code !== syntaxErrorCode) throw thrown;
    throw syntaxFault(syntaxMessage(fault.text), { cause: thrown });
  }
}

/** The engine's message, without the front's own query for the words. */
function syntaxMessage(text: string): string {
  return text
    .replace(/^Code: 62\. DB::Exception: /, '')
    .replace(/: (In scope|while executing) [\s\S]*$/, '')
    .replace(/ \(SYNTAX_ERROR\)$/, '');
}
