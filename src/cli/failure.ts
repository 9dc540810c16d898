import { CommanderError } from 'commander';
import { CoreError } from '../errors.ts';
import { classifyFailure } from '../stores/failures.ts';

/** SQLSTATE of a table that is not there. */
const undefinedTable = '42P01';

/** Whatever a command threw, as a CoreError whose message is one line for the operator. */
export function oneLine(thrown: unknown): CoreError {
  if (thrown instanceof CommanderError) {
    const message = thrown.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ');
    return new CoreError('INVALID_ARGUMENT', message, { cause: thrown });
  }
  if ((thrown as { code?: unknown } | null)?.code === undefinedTable) {
    return new CoreError(
      'MIGRATION_FAILED',
      'The database lacks the tables of Core; run core migrate',
      {
        cause: thrown,
      },
    );
  }
  const error = classifyFailure(thrown);
  if (error.code !== 'INTERNAL' && error.code !== 'STORE_UNAVAILABLE') return error;
  if (error === thrown || !(thrown instanceof Error)) return error;
  // An operator at a prompt may see what a node must not: the reason.
  return new CoreError(error.code, `${error.message}: ${thrown.message}`, { cause: thrown });
}
