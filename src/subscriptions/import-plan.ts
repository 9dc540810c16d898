import type { GoodImportLine, ImportedSubscription, ImportNote } from './imported.ts';

/** A note with how many lines have it, and the first of them. */
export interface CountedNote {
  note: string;
  lines: number;
  first: { line: number; user: string; detail?: string | undefined }[];
}

/** What an import would do, as far as it has been checked. */
export interface ImportPlan {
  /** Subscriptions to add, by what they will be; `waiting` are those whose time has not started. */
  states: Record<'active' | 'limited' | 'expired' | 'disabled' | 'waiting', number>;
  /** Bytes that the new subscriptions have used already. */
  usedBytes: number;
  /** Links that client apps hold and that go on working. */
  linksKept: number;
  /** Lines that an earlier import has added. */
  alreadyThere: number;
  notes: CountedNote[];
}

const notesMax = 100;
const shownMax = 10;
const otherNotes = 'has one of many other notes';

export function emptyPlan(): ImportPlan {
  return {
    states: { active: 0, limited: 0, expired: 0, disabled: 0, waiting: 0 },
    usedBytes: 0,
    linksKept: 0,
    alreadyThere: 0,
    notes: [],
  };
}

/** Adds a line that will be written to the plan. */
export function planLine(plan: ImportPlan, line: GoodImportLine): void {
  plan.states[stateOf(line.subscription, Date.now())] += 1;
  plan.usedBytes += line.subscription.usedBytes ?? 0;
  plan.linksKept += line.linksKept ?? 0;
  for (const note of line.notes ?? []) addNote(plan, line, note);
}

/** Counts a note of a line. */
export function addNote(
  plan: ImportPlan,
  { line, subscription }: GoodImportLine,
  { note: given, detail }: ImportNote,
): void {
  const isKnown = plan.notes.some(({ note }) => note === given);
  const note = isKnown || plan.notes.length < notesMax ? given : otherNotes;
  let counted = plan.notes.find((one) => one.note === note);
  if (counted === undefined) {
    counted = { note, lines: 0, first: [] };
    plan.notes.push(counted);
  }
  counted.lines += 1;
  const { user } = subscription;
  const name = 'name' in user ? user.name : `user ${user.id}`;
  if (counted.first.length < shownMax) counted.first.push({ line, user: name, detail });
}

function stateOf(given: ImportedSubscription, nowMs: number): keyof ImportPlan['states'] {
  if (given.disabled === true) return 'disabled';
  if (given.expiresAt !== null && given.expiresAt.getTime() <= nowMs) return 'expired';
  if (given.trafficLimitBytes !== null && (given.usedBytes ?? 0) >= given.trafficLimitBytes) {
    return 'limited';
  }
  return given.durationSeconds === undefined ? 'active' : 'waiting';
}
