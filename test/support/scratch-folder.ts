import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Test } from 'tap';

/** A temporary folder, which the teardown removes. */
export function scratchFolder(t: Test): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'core-scratch-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
