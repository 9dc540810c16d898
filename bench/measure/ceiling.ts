import { fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { projectRoot } from '../../src/root.ts';
import type { BodySet } from './bodies.ts';
import type { BenchWorld } from './world.ts';
import { runWrk } from './wrk.ts';

const program = path.join(projectRoot, 'dist', 'bench', 'measure', 'ceiling-server.js');

/** Runs `work` while a server runs that reads each body, answers, and does nothing else. */
export async function withCeilingServer<T>(
  work: (server: { url: string; pid: number }) => Promise<T>,
): Promise<T> {
  const server = fork(program, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  try {
    const [message] = (await once(server, 'message')) as [{ port: number }];
    return await work({ url: `http://127.0.0.1:${message.port}`, pid: server.pid ?? 0 });
  } finally {
    server.kill('SIGKILL');
  }
}

/** Requests a second that wrk reaches against that server. No bench can show more. */
export function measureCeiling(
  world: Pick<BenchWorld, 'keys'>,
  run: { bodies: BodySet; connections: number; seconds: number },
): Promise<number> {
  return withCeilingServer(async ({ url }) => {
    const result = await runWrk({
      url,
      method: 'POST',
      path: '/node/usage',
      headers: { 'content-type': 'application/json' },
      keys: { header: 'x-node-auth-key', values: world.keys },
      ...run,
      seed: 1,
    });
    return result.ok / result.seconds;
  });
}
