import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import type { AppLink } from '../harness/conformance/app-link.ts';
import { xrayClientConfig } from '../harness/conformance/xray-client.ts';

/**
 * Runs Xray as a client with a SOCKS inbound for each share link. It knows of a link what is in the URI.
 * The teardown stops it.
 * @param certificateFile trusted as a CA, because the test's certificate is self-signed.
 */
export async function startXrayClient(
  t: Test,
  folder: string,
  options: { xray: string; certificateFile?: string; links: readonly AppLink[] },
): Promise<void> {
  const { xray, certificateFile, links } = options;
  const file = path.join(folder, `client-${links[0]?.tag ?? ''}.json`);
  writeFileSync(file, JSON.stringify(xrayClientConfig(links)));
  const client = spawn(xray, ['run', '-c', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...(certificateFile && { SSL_CERT_FILE: certificateFile }) },
  });
  const exited = once(client, 'exit');
  t.teardown(async () => {
    client.kill('SIGKILL');
    await exited;
  });
  await started(t, client);
}

/** Lines of a client's log that a test shows at its end. */
const linesShownMax = 20;

function started(t: Test, client: ChildProcess): Promise<void> {
  const said: string[] = [];
  t.teardown(() => {
    for (const line of said.slice(-linesShownMax)) t.comment(`client: ${line}`);
  });
  return new Promise((resolve, reject) => {
    if (client.stdout === null) throw new Error('the client has no output');
    createInterface({ input: client.stdout }).on('line', (line) => {
      said.push(line);
      if (said.length > 10 * linesShownMax) said.shift();
      if (/Xray [\d.]+ started/.test(line)) resolve();
    });
    client.once('exit', () => {
      reject(new Error(`the Xray client did not start: ${said.join('\n')}`));
    });
  });
}
