import { CoreError } from '../errors.ts';
import { hiddenCharacter } from '../text.ts';
import type { CliContext } from './context.ts';

/** The option of every command that asks. */
export const yesOption = ['--yes', 'do it without asking; a script needs it'] as const;

interface Question {
  /** What is about to happen, like `Deleting node 3 (fra-1)`. */
  what: string;
  /** What it would do. Each completes a sentence that begins with `what`: `ends 14 links`. */
  effects: readonly string[];
  /** What the operator must type: the name of what would end, or yes. */
  answer: string;
  yes: boolean | undefined;
  /** Set if another command puts everything back. */
  isUndoable?: boolean;
}

/**
 * Returns once the operator has confirmed a change: by `--yes`, or at a terminal by typing the answer after
 * reading the effects.
 * @throws CoreError CONFIRMATION_NEEDED otherwise, before anything is changed.
 */
export async function confirm(context: CliContext, question: Question): Promise<void> {
  const { what, effects, yes } = question;
  if (yes === true) return;
  const warning = question.isUndoable === true ? 'Nothing' : 'It cannot be undone, and nothing';
  if (!context.isAtTerminal) {
    throw new CoreError(
      'CONFIRMATION_NEEDED',
      `${what} ${effects.join(', ')}. ${warning} was changed: give --yes to do it`,
    );
  }
  // An operator cannot type a name with hidden characters, so the command asks for `yes`.
  const answer = hiddenCharacter(question.answer) === undefined ? question.answer.trim() : 'yes';
  const lines = effects.map((effect) => `  ${effect}\n`).join('');
  const typed = await context.ask(
    `${what}\n${lines}${question.isUndoable === true ? '' : 'This cannot be undone. '}Type ${answer} to go on: `,
  );
  if (typed?.trim() === answer) return;
  throw new CoreError('CONFIRMATION_NEEDED', 'Not confirmed: nothing was changed');
}

/** `1 link`, `2 links`. */
export function counted(count: number, thing: string): string {
  return `${count} ${thing}${count === 1 ? '' : 's'}`;
}

/** `2 links, 1 of them in use`. */
export function countedLinks({ links, linksInUse }: { links: number; linksInUse: number }): string {
  return links === 0 ? 'no link' : `${counted(links, 'link')}, ${linksInUse} of them in use`;
}
