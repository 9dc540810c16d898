import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { CoreError } from '../errors.ts';

const retryMs = 100;
/** The setting of the address for the setting of a port, if there is one. */
const hostSettings: Readonly<Record<string, string>> = {
  CORE_PORT: 'CORE_HOST',
  CORE_ADMIN_PORT: 'CORE_ADMIN_HOST',
};

/**
 * Makes sure that nobody listens on a port yet. Core's processes share ports on purpose (SO_REUSEPORT), so a
 * second Core would not notice the first one.
 *
 * `patienceMs` is for a start right after a crash: the processes of the former Core may still be ending.
 * @throws CoreError PORT_TAKEN naming the port and the setting that moves it.
 */
export async function requireFreePort(
  host: string,
  port: number,
  setting: string,
  patienceMs = 0,
): Promise<void> {
  const giveUpAtMs = performance.now() + patienceMs;
  for (;;) {
    try {
      await listenOnce(host, port);
      return;
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code;
      if (code === 'EADDRINUSE' && performance.now() < giveUpAtMs) {
        await delay(retryMs);
        continue;
      }
      throw portError(host, port, setting, code, cause);
    }
  }
}

function portError(
  host: string,
  port: number,
  setting: string,
  code: string | undefined,
  cause: unknown,
): CoreError {
  if (code === 'EADDRINUSE') {
    return new CoreError(
      'PORT_TAKEN',
      `Port ${port} on ${host} is taken by another program. Stop it, or set ${setting} to a free port`,
      { cause },
    );
  }
  if (code === 'EACCES') {
    return new CoreError(
      'PORT_TAKEN',
      `Port ${port} on ${host} may not be opened by this user. Set ${setting} to a port from 1024`,
      { cause },
    );
  }
  const settings = [hostSettings[setting], setting].filter((name) => name !== undefined);
  return new CoreError(
    'INVALID_SETTINGS',
    `Cannot listen on ${host} port ${port} (${code ?? String(cause)}). Check ${settings.join(' and ')}`,
    { cause },
  );
}

function listenOnce(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve()));
  });
}
