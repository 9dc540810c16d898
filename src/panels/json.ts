import { createReadStream } from 'node:fs';
import { JSONParser, TokenType } from '@streamparser/json';
import { CoreError } from '../errors.ts';

/** Bytes of one element, so that a file that is one huge value cannot fill the memory. */
const elementBytesMax = 268_435_456;

/**
 * Values of one element. Small ones take many times their bytes in memory. 200,000 clients of 3x-ui in one
 * inbound, with their counters, are 6 million.
 */
const elementValuesMax = 8_000_000;

/** Levels of arrays and objects in each other. No panel has ten, and each level takes memory. */
const levelsMax = 64;

/**
 * Reads the elements of the array in a JSON file, one at a time: of the array that the file is, or of the
 * array that the object in the file holds at one of these paths. Several documents may follow each other, as
 * when the pages of an API are written to one file.
 * @throws CoreError INVALID_ARGUMENT if the file is no JSON or has no such array.
 */
export async function* readElements(
  file: string,
  paths: readonly string[],
): AsyncGenerator<unknown> {
  let parser: JSONParser | undefined;
  let found: unknown[] = [];
  let elements = 0;
  let bytesSince = 0;
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    parser ??= createParser(file, chunk, paths, (value) => {
      bytesSince = 0;
      found.push(value);
    });
    if (parser === undefined) continue;
    bytesSince += chunk.length;
    if (bytesSince > elementBytesMax) {
      throw unreadable(file, `an element has over ${elementBytesMax} bytes`);
    }
    try {
      parser.write(chunk);
    } catch (cause) {
      throw unreadable(file, `it is not valid JSON: ${(cause as Error).message}`, cause);
    }
    elements += found.length;
    yield* found;
    found = [];
  }
  if (parser === undefined) throw unreadable(file, 'it is empty');
  try {
    parser.end();
  } catch (cause) {
    throw unreadable(file, 'it ends in the middle of the JSON', cause);
  }
  if (elements === 0) {
    const places = paths.map((path) => path.slice(2)).join(' or ');
    throw unreadable(file, `it is no array, and has none with an element at ${places}`);
  }
}

/** Undefined if the chunk is blank. */
function createParser(
  file: string,
  start: Buffer,
  paths: readonly string[],
  onElement: (value: unknown) => void,
): JSONParser | undefined {
  const first = start
    .toString('utf8')
    .replace(/^\ufeff/, '')
    .trimStart()
    .charAt(0);
  if (first === '') return undefined;
  if (first !== '[' && first !== '{') {
    throw unreadable(file, 'it is no SQLite database, no JSON array and no JSON object');
  }
  const parser = new JSONParser({
    separator: '',
    keepStack: false,
    paths: first === '[' ? ['$.*'] : paths.map((path) => `${path}.*`),
  });
  let levels = 0;
  let values = 0;
  parser.onToken = ({ token }) => {
    if (isValueStart(token)) values += 1;
    // What was counted before it was a name.
    else if (token === TokenType.COLON) values -= 1;
    if (values > elementValuesMax)
      throw new Error(`an element has over ${elementValuesMax} values`);
    if (token === TokenType.LEFT_BRACE || token === TokenType.LEFT_BRACKET) levels += 1;
    else if (token === TokenType.RIGHT_BRACE || token === TokenType.RIGHT_BRACKET) levels -= 1;
    if (levels > levelsMax) throw new Error(`it is over ${levelsMax} levels deep`);
  };
  parser.onValue = ({ value, key }) => {
    if (typeof key !== 'number') return;
    values = 0;
    onElement(value);
  };
  return parser;
}

function isValueStart(token: TokenType): boolean {
  switch (token) {
    case TokenType.LEFT_BRACE:
    case TokenType.LEFT_BRACKET:
    case TokenType.STRING:
    case TokenType.NUMBER:
    case TokenType.TRUE:
    case TokenType.FALSE:
    case TokenType.NULL:
      return true;
    default:
      return false;
  }
}

function unreadable(file: string, why: string, cause?: unknown): CoreError {
  return new CoreError('INVALID_ARGUMENT', `${file}: ${why}`, { cause });
}
