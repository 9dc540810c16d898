import { once } from 'node:events';
import net from 'node:net';
import { type Answer, parseAnswer } from './answers.ts';
import type { FuzzCase } from './cases.ts';

/** What the server did with a case. */
export type Met =
  | { outcome: 'answered'; answers: Answer[] }
  /** The server closed the connection without an answer. */
  | { outcome: 'closed' }
  /** The server still waits, which is right if the request looks unfinished. */
  | { outcome: 'silent' }
  | { outcome: 'violation'; reason: string };

/** Longest wait for the answer to a whole request. */
const answerMsMax = 20_000;
/** Longest wait for the answer to a damaged request. */
const silenceMs = 40;

/** Sends one case at a time, and connects again if a case has ended the connection. */
interface FuzzConnection {
  exchange(fuzzCase: FuzzCase): Promise<Met>;
  close(): void;
}

export function createFuzzConnection(port: number): FuzzConnection {
  let socket: net.Socket | undefined;
  const open = async (): Promise<net.Socket> => {
    const made = net.connect({ port, host: '127.0.0.1', noDelay: true });
    made.on('error', () => undefined);
    await once(made, 'connect');
    return made;
  };
  const drop = (): void => {
    socket?.destroy();
    socket = undefined;
  };
  return {
    async exchange(fuzzCase) {
      const isReused = socket !== undefined && !socket.destroyed && socket.readable;
      if (!isReused) {
        drop();
        socket = await open();
      }
      let met = await sendAndWait(socket as net.Socket, fuzzCase);
      // A server may close an idle connection just when the next request is sent (RFC 9112, 9.3.1).
      if (met.outcome === 'closed' && isReused && fuzzCase.asks !== undefined) {
        drop();
        socket = await open();
        met = await sendAndWait(socket, fuzzCase);
      }
      const keeps =
        fuzzCase.asks !== undefined &&
        met.outcome === 'answered' &&
        !met.answers.some((answer) => answer.headers.has('connection'));
      if (!keeps) drop();
      if (fuzzCase.asks === undefined) return met;
      if (met.outcome === 'silent' || met.outcome === 'closed') {
        return {
          outcome: 'violation',
          reason: `a whole request was ${met.outcome === 'closed' ? 'cut off' : 'not answered'}`,
        };
      }
      return met;
    },
    close: drop,
  };
}

function sendAndWait(socket: net.Socket, fuzzCase: FuzzCase): Promise<Met> {
  return new Promise((resolve) => {
    let received: Buffer = Buffer.alloc(0);
    const answers: Answer[] = [];
    const finish = (met: Met): void => {
      clearTimeout(timer);
      socket.off('data', onData).off('close', onClose);
      resolve(met);
    };
    const onClose = (): void =>
      finish(answers.length > 0 ? { outcome: 'answered', answers } : { outcome: 'closed' });
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      for (;;) {
        const parsed = parseAnswer(received, fuzzCase.isHead);
        if (parsed.outcome === 'incomplete') return;
        if (parsed.outcome === 'malformed') {
          finish({ outcome: 'violation', reason: `the answer cannot be read: ${parsed.reason}` });
          return;
        }
        received = parsed.rest;
        answers.push(parsed.answer);
        // The server may take the rest of a damaged request for another request. It may answer that, too.
        if (fuzzCase.asks === undefined) continue;
        if (received.length > 0) finish({ outcome: 'violation', reason: 'more than one answer' });
        else finish({ outcome: 'answered', answers });
        return;
      }
    };
    const timer = setTimeout(
      () => finish(answers.length > 0 ? { outcome: 'answered', answers } : { outcome: 'silent' }),
      fuzzCase.asks === undefined ? silenceMs : answerMsMax,
    );
    socket.on('data', onData).on('close', onClose);
    void sendParts(socket, fuzzCase.parts);
  });
}

async function sendParts(socket: net.Socket, parts: readonly Buffer[]): Promise<void> {
  for (const part of parts) {
    if (socket.destroyed) return;
    await new Promise<void>((sent) => {
      socket.write(part, () => setImmediate(sent));
    });
  }
}
