import { CoreError } from '../errors.ts';
import { hiddenCharacter } from '../text.ts';
import type { CliContext } from './context.ts';

/** What `--yes` is called in the help of a command that asks. */
export const yesOption = ['--yes', 'do it without asking, as a script must'] as const;

export interface Question {
  /** What is about to happen, like `Deleting node 3 (fra-1)`. */
  what: string;
  /** What it would do, each as the end of a sentence: `ends 14 links`. */
  effects: readonly string[];
  /** What is to be typed: the name of what is at stake. */
  answer: string;
  yes: boolean | undefined;
}

/**
 * Returns if an operator wants what cannot be undone: by `--yes`, or at a terminal by typing the answer,
 * after having read what it would do.
 * @throws CoreError CONFIRMATION_NEEDED; nothing was changed then.
 */
export async function confirm(context: CliContext, question: Question): Promise<void> {
  const { what, effects, yes } = question;
  if (yes === true) return;
  if (!context.isAtTerminal) {
    throw new CoreError(
      'CONFIRMATION_NEEDED',
      `${what} ${effects.join(', ')}. It cannot be undone, and nothing was changed: give --yes to do it`,
    );
  }
  // A name that cannot be typed is not asked for.
  const answer = hiddenCharacter(question.answer) === undefined ? question.answer.trim() : 'yes';
  const lines = effects.map((effect) => `  ${effect}\n`).join('');
  const typed = await context.ask(
    `${what}\n${lines}This cannot be undone. Type ${answer} to go on: `,
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
