const int8Oid = 20;
const headerBytes = 20;
const elementBytes = 12;
const bigintMaxHigh = 0x7fff_ffff;

/**
 * A `bigint[]` parameter in Postgres' binary form. `pg` sends it unchanged, because it is a Buffer. As
 * text, an array of 200,000 numbers takes half a second to write and parse. A value over the largest bigint
 * becomes the largest bigint.
 *
 * Layout, all big-endian: dimensions, whether there are nulls, the type's oid, length, lower bound, and
 * then the length and value of each element (array_recv in Postgres' arrayfuncs.c).
 */
export function int8Array(values: BigUint64Array): Buffer {
  const buffer = Buffer.allocUnsafe(headerBytes + values.length * elementBytes);
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  view.setInt32(0, 1);
  view.setInt32(4, 0);
  view.setInt32(8, int8Oid);
  view.setInt32(12, values.length);
  view.setInt32(16, 1);
  // Values are read as two halves, since a bigint for each value would be an object for each value.
  const halves = new Uint32Array(values.buffer, values.byteOffset, values.length * 2);
  let at = headerBytes;
  for (let half = 0; half < halves.length; half += 2) {
    const high = halves[half + 1] ?? 0;
    const fits = high <= bigintMaxHigh;
    view.setInt32(at, 8);
    view.setUint32(at + 4, fits ? high : bigintMaxHigh);
    view.setUint32(at + 8, fits ? (halves[half] ?? 0) : 0xffff_ffff);
    at += elementBytes;
  }
  return buffer;
}
