import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type BrowserContext, chromium } from 'playwright-core';
import type { Test } from 'tap';

/** Debian's Chromium. */
const program = '/usr/bin/chromium';

const quietly = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/**
 * A Chromium with an empty profile, which is closed and removed at the teardown. `hosts` are names
 * that it takes for the loopback interface, whatever DNS says.
 * @throws Error with the package to install if Chromium is missing: a test that skipped itself
 * then would pass what nobody looked at.
 */
export async function openChromium(t: Test, hosts: readonly string[]): Promise<BrowserContext> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'core-chromium-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  try {
    const browser = await chromium.launchPersistentContext(folder, {
      executablePath: program,
      headless: true,
      args: [
        ...quietly,
        `--host-resolver-rules=${hosts.map((host) => `MAP ${host} 127.0.0.1`).join(',')}`,
      ],
    });
    t.teardown(() => browser.close());
    return browser;
  } catch (cause) {
    throw new Error(`${program} cannot be started: apt-get install chromium`, { cause });
  }
}
