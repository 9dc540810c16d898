import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { createRandom } from '../../test/harness/simulator/random.ts';
import { createBodies, numberBody } from './bodies.ts';
import type { BenchWorld } from './world.ts';

/** What the sender is to do. It comes over IPC. */
export interface LatencyOrder {
  port: number;
  world: BenchWorld;
  markSubscriptionId: number;
  markEveryMs: number;
  entries: number;
  requestsPerSecond: number;
  /** Requests under way at most. Others that are due wait, and their clock runs. */
  connections: number;
  /** Sent, but not measured. */
  warmSeconds: number;
  seconds: number;
}

/** What the sender answers once every request is answered. */
export interface LatencyReport {
  acked: number;
  failed: number;
  /** Answers other than 200 by status; `lost` counts connections that ended without one. */
  failures: Record<string, number>;
  latencyMs: { p50: number; p99: number; p999: number; max: number };
  /** From the appointed time to the write: delay of the sender itself, or for lack of connections. */
  lateMs: { p99: number };
  /** Marked requests of the measured time, and when their 200 came, in ms since the epoch. */
  marks: { number: number; ackedAtMs: number }[];
}

interface Request {
  number: number;
  dueMs: number;
  marked: boolean;
  measured: boolean;
}

/** One of the connections. If the server closes its socket, it gets a new one. */
interface Connection {
  socket: net.Socket | undefined;
  request: Request | undefined;
  frame: Frame | undefined;
  answer: string;
}

/** The bytes of a request. */
interface Frame {
  bytes: Buffer;
  /** From composing until the answer, since the socket may still be sending from the bytes. */
  isTaken: boolean;
}

const tickMs = 1;
const lastAnswersMsMax = 60_000;
const lastAnswersPollMs = 20;
const reconnectMs = 50;
/** Requests composed before they are due. */
const aheadMax = 8;

/** Sends at the appointed times until the order is done, then waits for the last answers. */
async function send(order: LatencyOrder): Promise<LatencyReport> {
  const latencyNs = createHistogram();
  const lateNs = createHistogram();
  const marks: LatencyReport['marks'] = [];
  let underWay = 0;
  /** By status, or `lost`. */
  const answers: Record<string, number> = {};
  const waiting: Request[] = [];
  const idle: Connection[] = [];
  const composer = createComposer(order);

  const write = (connection: Connection, request: Request): void => {
    connection.request = request;
    connection.answer = '';
    if (request.measured) record(lateNs, performance.now() - request.dueMs);
    connection.frame = composer.take(request.number);
    connection.socket?.write(connection.frame.bytes);
  };
  /** Sends the request that waits longest on this connection, or lets the connection rest. */
  const goOn = (connection: Connection): void => {
    const next = waiting.shift();
    if (next === undefined) idle.push(connection);
    else write(connection, next);
  };
  const onAnswer = (connection: Connection, status: number | undefined): void => {
    const { request } = connection;
    if (request === undefined) return;
    connection.request = undefined;
    // If the connection was lost, its socket may still hold the bytes: the frame stays taken.
    if (status !== undefined && connection.frame !== undefined) connection.frame.isTaken = false;
    underWay -= 1;
    const name = String(status ?? 'lost');
    answers[name] = (answers[name] ?? 0) + 1;
    if (request.measured) {
      record(latencyNs, performance.now() - request.dueMs);
      if (request.marked && status === 200) {
        marks.push({ number: request.number, ackedAtMs: Date.now() });
      }
    }
    if (status !== undefined) goOn(connection);
  };
  const stop = await connectAll(order, {
    onOpen: goOn,
    onAnswer,
    onClose: (connection) => {
      onAnswer(connection, undefined);
      const place = idle.indexOf(connection);
      if (place >= 0) idle.splice(place, 1);
    },
  });
  await onSchedule(order, {
    start: (request) => {
      underWay += 1;
      // The one that rested longest, so that none rests until the server closes it.
      const connection = idle.shift();
      if (connection === undefined) waiting.push(request);
      else write(connection, request);
    },
    rest: composer.prepare,
  });
  const giveUpAtMs = performance.now() + lastAnswersMsMax;
  while (underWay > 0 && performance.now() < giveUpAtMs) await delay(lastAnswersPollMs);
  stop();
  const { 200: acked = 0, ...failures } = answers;
  return {
    acked,
    failed: Object.values(failures).reduce((sum, count) => sum + count, underWay),
    failures,
    latencyMs: percentilesMs(latencyNs),
    lateMs: { p99: percentilesMs(lateNs).p99 },
    marks,
  };
}

function percentilesMs(histogram: RecordableHistogram): LatencyReport['latencyMs'] {
  const at = (percentile: number): number =>
    histogram.count === 0 ? 0 : histogram.percentile(percentile) / 1e6;
  return { p50: at(50), p99: at(99), p999: at(99.9), max: at(100) };
}

/** Records a time. The histogram counts nanoseconds and takes integers from 1. */
function record(histogram: RecordableHistogram, ms: number): void {
  histogram.record(Math.max(1, Math.round(ms * 1e6)));
}

/** Starts every request at its time, evenly spaced, until the order's seconds are over. */
function onSchedule(
  order: LatencyOrder,
  given: {
    start: (request: Request) => void;
    /** Called when nothing is due. */
    rest: () => void;
  },
): Promise<void> {
  const { requestsPerSecond, warmSeconds, seconds } = order;
  const total = Math.floor(requestsPerSecond * (warmSeconds + seconds));
  const startedMs = performance.now();
  let number = 0;
  return new Promise((resolve) => {
    const tick = (): void => {
      const nowMs = performance.now();
      while (number < total) {
        const dueMs = startedMs + (number * 1_000) / requestsPerSecond;
        if (dueMs > nowMs) break;
        const measured = dueMs - startedMs >= warmSeconds * 1_000;
        given.start({ number, dueMs, measured, marked: isMarked(order, number) });
        number += 1;
      }
      given.rest();
      if (number < total) setTimeout(tick, tickMs);
      else resolve();
    };
    tick();
  });
}

function isMarked({ requestsPerSecond, markEveryMs }: LatencyOrder, number: number): boolean {
  return number % Math.max(1, Math.round((requestsPerSecond * markEveryMs) / 1_000)) === 0;
}

interface Composer {
  /** The request with this number. Numbers are taken in order. */
  take(number: number): Frame;
  /** Composes the next few requests while the sender has time. */
  prepare: () => void;
}

/**
 * Composes requests as bytes: the head with the next node's key, and a body of its own. It changes
 * frames in place, since 65 KB of new memory a request cost the sender more than all other work. It
 * copies a frame that is still being sent, and a frame of a marked request.
 */
function createComposer(order: LatencyOrder): Composer {
  const { world, entries, markSubscriptionId } = order;
  const set = createBodies(world, { entries, seed: 1, atMs: Date.now() });
  const random = createRandom(1);
  const keys = world.keys.map((key) => Buffer.from(key));
  const head = Buffer.from(
    `POST /node/usage HTTP/1.1\r\nhost: 127.0.0.1:${order.port}\r\n` +
      'content-type: application/json\r\n' +
      `content-length: ${set.bodies[0]?.length ?? 0}\r\nx-node-auth-key: ${world.keys[0]}\r\n\r\n`,
  );
  const keyAt = head.indexOf(world.keys[0] ?? '');
  const frames = set.bodies.map((body) => ({ bytes: Buffer.concat([head, body]), isTaken: false }));
  const ahead: Frame[] = [];
  /** Number of the next request to compose. Those in `ahead` come before it. */
  let next = 0;

  const compose = (number: number): Frame => {
    let frame = frames[number % frames.length] as Frame;
    const marked = isMarked(order, number);
    if (frame.isTaken || marked) frame = { bytes: Buffer.from(frame.bytes), isTaken: false };
    frame.isTaken = true;
    (keys[number % keys.length] as Buffer).copy(frame.bytes, keyAt);
    const body = frame.bytes.subarray(head.length);
    numberBody(set, body, number, random);
    if (marked) {
      const field = '"subscriptionId":';
      body.write(String(markSubscriptionId), body.indexOf(field) + field.length, 'latin1');
    }
    return frame;
  };
  const composeNext = (): Frame => {
    next += 1;
    return compose(next - 1);
  };
  return {
    take(number) {
      assert.equal(number, next - ahead.length, 'requests are taken in order');
      return ahead.shift() ?? composeNext();
    },
    prepare() {
      while (ahead.length < aheadMax) ahead.push(composeNext());
    },
  };
}

interface Events {
  /** Connected, for the first time or again. */
  onOpen: (connection: Connection) => void;
  onAnswer: (connection: Connection, status: number) => void;
  /** The connection ended. A request on it gets no answer. */
  onClose: (connection: Connection) => void;
}

/** Opens all connections, and opens closed ones again until the returned function is called. */
async function connectAll(order: LatencyOrder, events: Events): Promise<() => void> {
  const connections: Connection[] = [];
  let stopped = false;
  const open = (connection: Connection): net.Socket => {
    const socket = net.connect({ host: '127.0.0.1', port: order.port, noDelay: true });
    socket.on('connect', () => {
      connection.socket = socket;
      events.onOpen(connection);
    });
    socket.on('data', (chunk) => {
      connection.answer += chunk.toString('latin1');
      const status = readStatus(connection.answer);
      if (status !== undefined) events.onAnswer(connection, status);
    });
    // `close` follows, and its listener handles the failure.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      connection.socket = undefined;
      events.onClose(connection);
      if (!stopped) setTimeout(() => stopped || open(connection), reconnectMs);
    });
    return socket;
  };
  for (let count = 0; count < order.connections; count += 1) {
    const connection: Connection = {
      socket: undefined,
      request: undefined,
      frame: undefined,
      answer: '',
    };
    connections.push(connection);
    await once(open(connection), 'connect');
  }
  return () => {
    stopped = true;
    for (const { socket } of connections) socket?.destroy();
  };
}

/** The status of a complete answer; undefined while bytes are missing. */
export function readStatus(answer: string): number | undefined {
  const headEnd = answer.indexOf('\r\n\r\n');
  if (headEnd < 0) return undefined;
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(answer.slice(0, headEnd + 2))?.[1] ?? 0);
  if (answer.length < headEnd + 4 + length) return undefined;
  return Number(answer.slice(9, 12));
}

process.once('message', (order: LatencyOrder) => {
  process.once('disconnect', () => process.exit(0));
  send(order).then(
    (report) => process.send?.(report),
    (thrown: unknown) => {
      process.stderr.write(`latency: ${thrown instanceof Error ? thrown.stack : thrown}\n`);
      process.exit(1);
    },
  );
});
