import { type BrowserContext, chromium } from 'playwright-core';
import type { Test } from 'tap';
import { scratchFolder } from './scratch-folder.ts';

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
 * A Chromium with an empty profile. The teardown closes it and removes the profile. It connects to the
 * loopback interface for the names in `hosts`, without DNS.
 * @throws Error with the package to install if Chromium is missing: if the test were skipped then,
 * nobody would notice that nothing was tested.
 */
export async function openChromium(t: Test, hosts: readonly string[]): Promise<BrowserContext> {
  const folder = scratchFolder(t);
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
