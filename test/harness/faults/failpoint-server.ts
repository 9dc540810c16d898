import { once } from 'node:events';
import http from 'node:http';
import { type FailpointName, failpointNames } from '../../../src/failpoints.ts';

export interface FailpointServer {
  port: number;
  /** What happens at a failpoint from now on; the process goes on once it has resolved. */
  onPass(handler: PassHandler): void;
  close(): Promise<void>;
}

export type PassHandler = (role: string, name: FailpointName) => Promise<void>;

/** Listens where CORE_FAILPOINT_URL points: every process asks here at every step. */
export async function startFailpointServer(port: number): Promise<FailpointServer> {
  let handler: PassHandler = async () => undefined;
  const server = http.createServer((request, response) => {
    const [, role = '', given = ''] = (request.url ?? '').split('/');
    const name = failpointNames.find((known) => known === decodeURIComponent(given));
    const answer = (): void => {
      // The process that asked may be the one that was killed.
      if (!response.destroyed) response.end();
    };
    if (name === undefined) answer();
    else handler(role, name).then(answer, answer);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port,
    onPass(next) {
      handler = next;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
