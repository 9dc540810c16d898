import { Writable } from 'node:stream';
import { pino } from 'pino';
import t from 'tap';
import { CoreError } from '../../src/errors.ts';
import { createFailureLog } from '../../src/http/failure-log.ts';
import { healthzRoute } from '../../src/http/routes/health.ts';
import { post, registerTestNode, startTestApi, until, wideEntries } from '../support/api.ts';

interface Line {
  level: number;
  code: string;
  requestId: string;
  leftOut?: number;
}

/** A logger, and the lines that it has written. */
function memoryLog(level: string) {
  const lines: Line[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  return { lines, log: pino({ level }, destination) };
}

t.test('the log gets ten lines a second for one error code, and a count of the rest', async (t) => {
  const { lines, log } = memoryLog('info');
  let nowMs = 5_000;
  const failures = createFailureLog(log, () => nowMs);
  const fail = (code: 'STORE_UNAVAILABLE' | 'INTERNAL' | 'VALIDATION_FAILED', times: number) => {
    for (let count = 0; count < times; count += 1) {
      failures.write(`id-${count}`, healthzRoute(), new CoreError(code, 'm'));
    }
  };
  fail('STORE_UNAVAILABLE', 25);
  t.equal(lines.length, 10);
  fail('INTERNAL', 1);
  t.match(
    lines.at(-1),
    { level: 50, code: 'INTERNAL' },
    'another error code has a bound of its own',
  );
  fail('VALIDATION_FAILED', 100);
  t.equal(lines.length, 11, 'what a client did wrong is logged at debug level only');
  nowMs += 999;
  fail('STORE_UNAVAILABLE', 1);
  t.equal(lines.length, 11);
  nowMs += 1;
  fail('STORE_UNAVAILABLE', 12);
  t.equal(lines.length, 21);
  t.match(lines[11], { level: 40, requestId: 'id-0', leftOut: 16 });
  t.equal(lines[12]?.leftOut, undefined);
});

t.test('a node that is refused many times does not fill the log', async (t) => {
  const { lines, log } = memoryLog('warn');
  const settings = { CORE_SPOOL_BYTES_MAX: '1048576', CORE_SPOOL_SHARDS: '1' };
  const api = await startTestApi(t, settings, log);
  const node = await registerTestNode(api);
  const fill = (userId: number, entries: number) =>
    post(api, '/node/usage', { entries: wideEntries(entries, userId) }, { node });
  for (let userId = 1; userId <= 3; userId += 1) await fill(userId, 8_000);
  let userId = 4;
  await until(
    () => {
      userId += 1;
      return fill(userId, 400);
    },
    (reply) => reply.status === 503,
  );
  const before = lines.length;
  const startedMs = performance.now();
  const refused = await Promise.all(Array.from({ length: 150 }, (_, at) => fill(1_000 + at, 400)));
  const seconds = (performance.now() - startedMs) / 1_000;
  t.same(new Set(refused.map((reply) => reply.status)), new Set([503]));
  t.ok(before > 0, 'the first failure is written');
  // Ten lines a second; the first second may have begun before these requests.
  const linesMax = 10 * (Math.ceil(seconds) + 1);
  t.ok(lines.length - before <= linesMax, `${lines.length - before} lines in ${seconds} s`);
});
