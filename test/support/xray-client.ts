import type { Test } from 'tap';
import type { AppLink } from '../harness/conformance/app-link.ts';
import { startXrayClient } from '../harness/conformance/xray-client.ts';

/** Lines of a client's log that a test shows at its end. */
const linesShown = 20;

/** Runs Xray as a client on some share links. The teardown stops it. */
export async function startClient(
  t: Test,
  options: { xray: string; folder: string; authorityFile: string; links: readonly AppLink[] },
): Promise<void> {
  const { xray, ...rest } = options;
  const client = await startXrayClient(xray, rest);
  t.teardown(async () => {
    for (const line of client.log().split('\n').slice(-linesShown)) t.comment(`client: ${line}`);
    await client.stop();
  });
}
