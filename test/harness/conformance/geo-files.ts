import { writeFileSync } from 'node:fs';
import path from 'node:path';

// Geo files with a few names, for a comparison of rules: Xray refuses a name that is not in the node's files.

/** A field of a protobuf message whose value has a length. */
const field = (number: number, value: Buffer | string): Buffer => {
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.from([(number << 3) | 2, bytes.length]), bytes]);
};

const network = Buffer.concat([field(1, Buffer.from([10, 0, 0, 0])), Buffer.from([2 << 3, 8])]);
const domain = Buffer.concat([Buffer.from([1 << 3, 2]), field(2, 'example.com')]);

/** Writes geoip.dat (PRIVATE, CN) and geosite.dat (GOOGLE, CN) into a folder. */
export function writeGeoFiles(folder: string): void {
  const list = (names: readonly string[], content: Buffer): Buffer =>
    Buffer.concat(
      names.map((name) => field(1, Buffer.concat([field(1, name), field(2, content)]))),
    );
  writeFileSync(path.join(folder, 'geoip.dat'), list(['PRIVATE', 'CN'], network));
  writeFileSync(path.join(folder, 'geosite.dat'), list(['GOOGLE', 'CN'], domain));
}
