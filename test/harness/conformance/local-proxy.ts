import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** A certificate for localhost, and the authority that signed it, as files. */
export async function makeAuthority(folder: string): Promise<{
  authorityFile: string;
  certificateFile: string;
  keyFile: string;
}> {
  const at = (name: string): string => path.join(folder, name);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await execute('openssl', [
    ...['req', '-x509', ...newKey, '-days', '2', '-subj', '/CN=Authority of a test'],
    ...['-keyout', at('authority.key'), '-out', at('authority.pem')],
  ]);
  await execute('openssl', [
    ...['req', ...newKey, '-subj', '/CN=localhost'],
    ...['-keyout', at('server.key'), '-out', at('server.csr')],
  ]);
  writeFileSync(at('extensions'), 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n');
  await execute('openssl', [
    ...['x509', '-req', '-in', at('server.csr'), '-days', '2', '-extfile', at('extensions')],
    ...['-CA', at('authority.pem'), '-CAkey', at('authority.key'), '-CAcreateserial'],
    ...['-out', at('server.pem')],
  ]);
  return {
    authorityFile: at('authority.pem'),
    certificateFile: at('server.pem'),
    keyFile: at('server.key'),
  };
}

const startMsMax = 20_000;

/** Resolves once something listens on the port. Throws if nothing does in 20 s. */
export async function awaitListening(port: number): Promise<void> {
  const deadline = Date.now() + startMsMax;
  while (!(await isListening(port))) {
    if (Date.now() > deadline) throw new Error(`nothing listens on port ${port}`);
    await setTimeout(50);
  }
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
