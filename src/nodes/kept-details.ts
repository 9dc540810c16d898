import { limits } from '../contract/limits.ts';
import { storableText } from '../text.ts';

/** What Core keeps of the details of an error report. */
const kept = {
  bytesMax: limits.errorDetailsKeptBytesMax,
  levelsMax: limits.errorDetailsKeptLevelsMax,
  membersMax: limits.errorDetailsKeptMembersMax,
};
/** Room for the mark, and for the bytes by which the last members exceed the budget. */
const reservedBytes = 512;
const ellipsis = '…';
/** Added to details if something was left out. */
const cutMark = {
  name: '(cut)',
  value: `Core keeps ${kept.bytesMax} bytes, ${kept.levelsMax} levels, ${kept.membersMax} members each`,
};

/**
 * The details of an error report as JSON text within the limits above. Even an odd report is worth
 * keeping, so Core refuses none: it leaves out what exceeds a limit, and adds the member `(cut)`.
 */
export function keptDetails(details: Readonly<Record<string, unknown>>): string {
  const budget = { leftBytes: kept.bytesMax - reservedBytes, isCut: false };
  const members = keptMembers(budget, details, 1);
  if (budget.isCut) members.push([cutMark.name, cutMark.value]);
  // An assignment would treat the name `__proto__` differently.
  return JSON.stringify(Object.fromEntries(members));
}

interface Budget {
  leftBytes: number;
  isCut: boolean;
}

function keptMembers(budget: Budget, object: object, level: number): [string, unknown][] {
  const members: [string, unknown][] = [];
  budget.leftBytes -= 2;
  for (const name in object) {
    if (isFull(budget, members)) break;
    const keptName = keptText(budget, name);
    members.push([keptName, keptValue(budget, object[name as keyof typeof object], level)]);
  }
  return members;
}

function keptElements(budget: Budget, array: readonly unknown[], level: number): unknown[] {
  const elements: unknown[] = [];
  budget.leftBytes -= 2;
  for (const element of array) {
    if (isFull(budget, elements)) break;
    elements.push(keptValue(budget, element, level));
  }
  return elements;
}

function isFull(budget: Budget, members: readonly unknown[]): boolean {
  const isOver = members.length >= kept.membersMax || budget.leftBytes <= 0;
  budget.isCut ||= isOver;
  return isOver;
}

/** Recurses once a level, and `levelsMax` bounds the levels. */
function keptValue(budget: Budget, value: unknown, level: number): unknown {
  if (typeof value === 'string') return keptText(budget, value);
  if (typeof value !== 'object' || value === null) {
    budget.leftBytes -= String(value).length + 1;
    return value;
  }
  if (level >= kept.levelsMax) {
    budget.isCut = true;
    return keptText(budget, ellipsis);
  }
  if (Array.isArray(value)) return keptElements(budget, value, level + 1);
  return Object.fromEntries(keptMembers(budget, value, level + 1));
}

/** The text, or as much from its start as fits with an ellipsis behind. */
function keptText(budget: Budget, given: string): string {
  let text = storableText(given.slice(0, kept.bytesMax));
  let isWhole = text.length === given.length;
  for (
    let bytes = bytesInJson(text);
    bytes > budget.leftBytes && text !== '';
    bytes = bytesInJson(text)
  ) {
    isWhole = false;
    const share = Math.max(0, budget.leftBytes) / bytes;
    text = storableText(text.slice(0, Math.floor(text.length * share)));
  }
  if (!isWhole) {
    budget.isCut = true;
    text += ellipsis;
  }
  budget.leftBytes -= bytesInJson(text);
  return text;
}

/** Bytes of a text in JSON, with the comma or colon after it. */
function bytesInJson(text: string): number {
  return Buffer.byteLength(JSON.stringify(text)) + 1;
}
