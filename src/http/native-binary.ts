import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { CoreError } from '../errors.ts';

const require = createRequire(import.meta.url);

/**
 * Checks that the HTTP server has a native binary for this Node. Without one uWebSockets.js falls back
 * to a replacement that lacks what Core needs, and fails at the first request. scripts/bootstrap.mjs
 * makes the same check before it builds. `folder` is the folder of the package.
 * @throws CoreError NODE_UNSUPPORTED that names this Node and the ABIs that have binaries.
 */
export function requireHttpBinary(folder = packageFolder()): void {
  const { platform, arch, versions } = process;
  const binaries = path.join(folder, 'binaries');
  try {
    require(path.join(binaries, `uws_${platform}_${arch}_${versions.modules}.node`));
  } catch (cause) {
    const prefix = `uws_${platform}_${arch}_`;
    const others = namesIn(binaries)
      .filter((name) => name.startsWith(prefix))
      .map((name) => Number(path.parse(name).name.slice(prefix.length)))
      .sort((a, b) => a - b);
    const isMissing = (cause as { code?: unknown }).code === 'MODULE_NOT_FOUND';
    const why = isMissing
      ? `there are binaries for ABI ${others.join(', ') || 'none'}`
      : String((cause as Error).message).split('\n')[0];
    throw new CoreError(
      'NODE_UNSUPPORTED',
      `Core needs Node 20; this is ${versions.node}: the HTTP server has no binary for it (${platform} ${arch}, ABI ${versions.modules}; ${why})`,
      { cause },
    );
  }
}

function packageFolder(): string {
  // The main file of the package is src/uws.js.
  return path.dirname(path.dirname(fileURLToPath(import.meta.resolve('uWebSockets.js'))));
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // No folder means no binaries, and the message says so.
    return [];
  }
}
