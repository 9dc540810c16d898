import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
const endMsMax = 30_000;

/**
 * What a program of Debian's `v2ray` package prints.
 * @throws Error with what it printed where it fails, or with how to get it where it is missing: a
 * test that skipped itself then would pass what nobody looked at.
 */
export async function runV2ray(program: 'v2ray' | 'v2ctl', args: string[]): Promise<string> {
  try {
    const { stdout } = await run(program, args, { timeout: endMsMax });
    return stdout;
  } catch (thrown) {
    const failure = thrown as { code?: unknown; stdout?: string; stderr?: string };
    if (failure.code === 'ENOENT') {
      throw new Error(`${program} is not on the PATH: apt-get install v2ray`, { cause: thrown });
    }
    const printed = `${failure.stdout ?? ''}${failure.stderr ?? ''}`;
    throw new Error(`${program} ${args.join(' ')} failed: ${printed}`, { cause: thrown });
  }
}
