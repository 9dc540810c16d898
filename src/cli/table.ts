import { maskSecrets } from '../fleet/secrets.ts';
import type { Harmless } from '../settings/harmless.ts';
import { jsonText, printable } from '../text.ts';

/** A value of a table cell, before it becomes text. */
export type Cell = unknown;

/** The text of a cell: `-` for nothing, ISO 8601 for a date, JSON for an object. */
export function cellText(cell: Cell): string {
  if (cell === null || cell === undefined) return '-';
  if (cell instanceof Date) return cell.toISOString();
  if (typeof cell === 'object') return jsonText(cell);
  return printable(String(cell));
}

/** A table with aligned columns, numbers to the right. The last line ends with a newline. */
export function tableText(columns: readonly string[], rows: readonly (readonly Cell[])[]): string {
  return formatRows(planColumns(columns, rows), rows, columns);
}

/** The width of a column, and whether it holds only numbers. */
export interface ColumnPlan {
  width: number;
  alignRight: boolean;
}

export function planColumns(
  columns: readonly string[],
  rows: readonly (readonly Cell[])[],
): ColumnPlan[] {
  return columns.map((column, index) => {
    let width = charsOf(column);
    for (const row of rows) width = Math.max(width, charsOf(cellText(row[index])));
    const given = rows.map((row) => row[index]).filter((cell) => cell !== null);
    return { width, alignRight: given.length > 0 && given.every(isNumeric) };
  });
}

/** Text counts as a number, too: ClickHouse sends 64-bit integers as text, so that no digit is lost. */
function isNumeric(cell: Cell): boolean {
  return typeof cell === 'number' || (typeof cell === 'string' && /^-?\d+$/.test(cell));
}

/** Formats rows by a plan that was made earlier, for rows that arrive after the first were printed. */
export function formatRows(
  plan: readonly ColumnPlan[],
  rows: readonly (readonly Cell[])[],
  columns?: readonly string[],
): string {
  const lines = columns === undefined ? [] : [formatLine(plan, columns)];
  for (const row of rows) lines.push(formatLine(plan, row));
  return lines.map((line) => `${line}\n`).join('');
}

function formatLine(plan: readonly ColumnPlan[], cells: readonly Cell[]): string {
  return plan
    .map(({ width, alignRight }, index) => {
      const text = cellText(cells[index]);
      const padding = ' '.repeat(Math.max(0, width - charsOf(text)));
      return alignRight ? padding + text : text + padding;
    })
    .join('  ')
    .trimEnd();
}

/** Counts code points, not UTF-16 units. */
function charsOf(text: string): number {
  return [...text].length;
}

/** An object with one field per line. */
export function fieldsText(fields: Record<string, Cell>): string {
  const names = Object.keys(fields);
  const width = Math.max(...names.map(charsOf));
  return names.map((name) => `${name.padEnd(width)}  ${cellText(fields[name])}\n`).join('');
}

/** Objects of one shape as a table, or the line `none` if there are none. */
export function objectsText(
  objects: readonly object[],
  columns: readonly string[],
  none: string,
): string {
  if (objects.length === 0) return `${none}\n`;
  return tableText(
    columns,
    objects.map((object) => columns.map((column) => (object as Record<string, Cell>)[column])),
  );
}

/** Settings for a table or `--json`. They are masked as in a plan, unless the operator wants secrets. */
export function settingsToShow(
  settings: unknown,
  harmless: Harmless,
  options: { secrets?: boolean },
): unknown {
  return options.secrets === true ? settings : maskSecrets(settings, harmless);
}

/** A byte count for people, with three digits and units of powers of 1,000. */
export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return unit === 0 ? `${bytes} B` : `${Number(value.toPrecision(3))} ${units[unit]}`;
}
