const newline = 0x0a;

/**
 * Lines of a stream of bytes, numbered from 1, as UTF-8 text. A line over the bound comes without
 * its text, and is never held whole.
 */
export async function* splitLines(
  input: AsyncIterable<Buffer>,
  bytesMax: number,
): AsyncGenerator<{ line: number; text: string | undefined }> {
  let line = 1;
  let held: Buffer[] = [];
  let heldBytes = 0;
  const take = (last: Buffer): { line: number; text: string | undefined } => {
    const isTooLong = heldBytes + last.length > bytesMax;
    const text = isTooLong ? undefined : Buffer.concat([...held, last]).toString('utf8');
    held = [];
    heldBytes = 0;
    return { line: line++, text };
  };
  for await (const chunk of input) {
    let start = 0;
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, start)) {
      yield take(chunk.subarray(start, end));
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    heldBytes += rest.length;
    if (heldBytes <= bytesMax) held.push(rest);
    else held = [];
  }
  if (heldBytes > 0) yield take(Buffer.alloc(0));
}
