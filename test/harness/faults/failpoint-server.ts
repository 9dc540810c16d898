import { once } from 'node:events';
import http from 'node:http';
import { type FailpointName, failpointNames } from '../../../src/failpoints.ts';

export interface FailpointServer {
  port: number;
  /** Sets what happens at a failpoint from now on. The process goes on once the handler resolves. */
  onPass(handler: PassHandler): void;
  close(): Promise<void>;
}

export type PassHandler = (role: string, name: FailpointName) => Promise<void>;

/** Listens at CORE_FAILPOINT_URL, where every process of Core asks at each failpoint. */
export async function startFailpointServer(port: number): Promise<FailpointServer> {
  let handler: PassHandler = async () => undefined;
  const server = http.createServer((request, response) => {
    const [, role = '', given = ''] = (request.url ?? '').split('/');
    const name = failpointNames.find((known) => known === decodeURIComponent(given));
    const answer = (): void => {
      // The handler may have killed the process that asked.
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
