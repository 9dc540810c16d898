import { spawn } from 'node:child_process';
import { once } from 'node:events';

// What a real Xray says of a configuration: `xray run -test` reads it, builds every part and starts nothing.

const outputCharsMax = 65_536;
const parallelMax = 2;

/** Undefined if Xray takes the configuration; otherwise why it does not. */
export async function xrayRefusal(
  xrayPath: string,
  config: object,
  environment: Record<string, string> = {},
): Promise<string | undefined> {
  const child = spawn(xrayPath, ['run', '-test', '-config', 'stdin:'], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '', ...environment },
    timeout: 60_000,
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      if (said.length < outputCharsMax) said += String(chunk);
    });
  }
  const closed = once(child, 'close');
  child.stdin.on('error', () => undefined);
  child.stdin.end(JSON.stringify(config));
  const [code] = (await closed) as [number | null];
  if (code === 0) return undefined;
  const reason = said.split('\n').find((line) => /Failed to|panic:|failed to/.test(line)) ?? said;
  return reason.split(' > ').slice(-2).join(' > ').trim();
}

/**
 * Finds the parts of a list that Xray refuses, each with the reason. It tries all of them in one configuration
 * first, and halves of it as long as that fails, because a start of Xray costs more than many parts.
 */
export async function refusedParts<T>(
  parts: readonly T[],
  test: (parts: readonly T[]) => Promise<string | undefined>,
): Promise<Map<T, string>> {
  const refused = new Map<T, string>();
  const pending: (readonly T[])[] = parts.length === 0 ? [] : [parts];
  while (pending.length > 0) {
    const now = pending.splice(0, parallelMax);
    const reasons = await Promise.all(now.map((some) => test(some)));
    for (const [index, some] of now.entries()) {
      const reason = reasons[index];
      if (reason === undefined) continue;
      const [first] = some;
      if (some.length === 1 && first !== undefined) refused.set(first, reason);
      else pending.push(some.slice(0, some.length / 2), some.slice(some.length / 2));
    }
  }
  return refused;
}
