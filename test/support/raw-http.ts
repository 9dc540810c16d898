import { once } from 'node:events';
import net from 'node:net';
import { type Answer, parseAnswer } from '../harness/fuzz/answers.ts';

/**
 * Sends each part by itself on a new connection, and returns every answer until the server closes the
 * connection or until there are `answersMax`. If the server does neither within `msMax`, it rejects.
 */
export async function exchange(
  port: number,
  parts: readonly (string | Buffer)[],
  options: { answersMax?: number; msMax?: number } = {},
): Promise<{ answers: Answer[]; closed: boolean }> {
  const { answersMax = Number.POSITIVE_INFINITY, msMax = 20_000 } = options;
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  const answers: Answer[] = [];
  let received: Buffer = Buffer.alloc(0);
  const done = new Promise<boolean>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`still open after ${msMax} ms`)), msMax);
    const finish = (closed: boolean): void => {
      clearTimeout(timer);
      resolve(closed);
    };
    socket.once('close', () => finish(true));
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      for (let parsed = parseAnswer(received); parsed.outcome !== 'incomplete'; ) {
        if (parsed.outcome === 'malformed') {
          clearTimeout(timer);
          reject(new Error(parsed.reason));
          return;
        }
        answers.push(parsed.answer);
        received = parsed.rest;
        parsed = parseAnswer(received);
      }
      if (answers.length >= answersMax) finish(false);
    });
  });
  done.catch(() => undefined);
  for (const part of parts) {
    if (socket.destroyed) break;
    await new Promise<void>((sent) => {
      socket.write(part, () => setImmediate(sent));
    });
  }
  try {
    return { answers, closed: await done };
  } finally {
    socket.destroy();
  }
}
