import { fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { projectRoot } from '../../src/root.ts';
import type { BodySet } from './bodies.ts';
import type { BenchWorld } from './world.ts';
import { runWrk } from './wrk.ts';

const program = path.join(projectRoot, 'dist', 'bench', 'measure', 'ceiling-server.js');

/**
 * Requests a second that wrk reaches against a server that reads each body and answers, and does
 * nothing else: no bench here can show more.
 */
export async function measureCeiling(
  world: Pick<BenchWorld, 'keys'>,
  run: { bodies: BodySet; connections: number; seconds: number },
): Promise<number> {
  const server = fork(program, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  try {
    const [message] = (await once(server, 'message')) as [{ port: number }];
    const result = await runWrk({
      url: `http://127.0.0.1:${message.port}`,
      method: 'POST',
      path: '/node/usage',
      headers: { 'content-type': 'application/json' },
      keys: { header: 'x-node-auth-key', values: world.keys },
      ...run,
      seed: 1,
    });
    return result.ok / result.seconds;
  } finally {
    server.kill('SIGKILL');
  }
}
