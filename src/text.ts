/**
 * Characters that a reader does not see, or that change how text is shown: C0 and C1 controls, format
 * characters (bidi marks, zero width, tags), separators of lines and paragraphs, and halves of surrogate
 * pairs. Names, tags and messages come from the network. Printed as they are, they could rewrite an
 * operator's terminal, or make one name look like another.
 */
const hidden = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;
const everyHidden = new RegExp(hidden, 'gu');
/** The same without the line feed, for text of several lines. */
const everyHiddenInLines = new RegExp(`(?!\\n)${hidden.source}`, 'gu');
/** Most text is plain, and then nothing has to be searched. */
const plain = /^[\n -~]*$/;

/**
 * The first hidden character of a text, to name it in an error.
 * @returns its code point like `U+202E`, and its place in characters from 1.
 */
export function hiddenCharacter(text: string): { name: string; position: number } | undefined {
  const found = hidden.exec(text);
  if (found === null) return undefined;
  const name = `U+${codePointOf(found[0]).toString(16).toUpperCase().padStart(4, '0')}`;
  return { name, position: [...text.slice(0, found.index)].length + 1 };
}

/** The message about a text with a hidden character; undefined if it has none. */
export function hiddenFault(text: string): string | undefined {
  const found = hiddenCharacter(text);
  if (found === undefined) return undefined;
  return `Must not hold the character ${found.name} (it is at place ${found.position})`;
}

/** Text for one line or one cell: hidden characters become escapes like `\x1b` and `\u202e`. */
export function printable(text: string): string {
  return text.replaceAll(everyHidden, visible);
}

/** The same for text of several lines, which stay lines. */
export function printableLines(text: string): string {
  return plain.test(text) ? text : text.replaceAll(everyHiddenInLines, visible);
}

/** A value as JSON on one line, with escapes for hidden characters. */
export function jsonText(value: unknown): string {
  return escapedJson(JSON.stringify(value));
}

/** JSON text from elsewhere, with escapes for hidden characters; line feeds stay. */
export function escapedJson(json: string): string {
  return plain.test(json) ? json : json.replaceAll(everyHiddenInLines, escaped);
}

/** YAML text from elsewhere, with escapes for hidden characters, which it may have in double quotes only. */
export function escapedYaml(yaml: string): string {
  return yaml.replaceAll(
    everyHiddenInLines,
    (character) => `\\U${codePointOf(character).toString(16).padStart(8, '0')}`,
  );
}

function visible(character: string): string {
  const code = codePointOf(character);
  const digits = code.toString(16);
  if (code <= 0xff) return `\\x${digits.padStart(2, '0')}`;
  return code <= 0xffff ? `\\u${digits.padStart(4, '0')}` : `\\u{${digits}}`;
}

/** JSON has escapes for UTF-16 units only. */
function escaped(character: string): string {
  const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at));
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`).join('');
}

function codePointOf(character: string): number {
  return character.codePointAt(0) ?? 0;
}

/**
 * Whether Postgres can store all texts of a value: it takes no U+0000 and no halves of surrogate pairs.
 */
export function isStorable(value: unknown): boolean {
  if (typeof value === 'string') return !value.includes('\u0000') && !/\p{Cs}/u.test(value);
  if (typeof value !== 'object' || value === null) return true;
  return Object.entries(value).every(([name, inner]) => isStorable(name) && isStorable(inner));
}

/**
 * Text that Postgres can store, in `text` and in `json`: U+0000 and halves of surrogate pairs become
 * U+FFFD.
 */
export function storableText(text: string): string {
  return text.replaceAll('\u0000', '\uFFFD').replaceAll(/\p{Surrogate}/gu, '\uFFFD');
}
