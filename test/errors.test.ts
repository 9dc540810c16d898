import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Redis } from 'ioredis';
import t from 'tap';
import { CoreError, errorBody, errorTable, toCoreError } from '../src/errors.ts';
import { serializeError } from '../src/log.ts';
import { projectRoot } from '../src/root.ts';
import { classifyFailure } from '../src/stores/failures.ts';

t.test('docs/errors.md lists every code of the registry', async (t) => {
  const page = readFileSync(path.join(projectRoot, 'docs', 'errors.md'), 'utf8');
  const listed = [...page.matchAll(/^\| ([A-Z_]+) +\| (\d+) +\| (yes|no) +\| (.+?) +\|$/gm)].map(
    (row) => ({
      code: row[1],
      status: Number(row[2]),
      retryable: row[3] === 'yes',
      means: row[4],
    }),
  );
  t.same(
    listed,
    Object.entries(errorTable).map(([code, entry]) => ({ code, ...entry })),
  );
});

t.test('a client gets code, message and issues of an error, and nothing else', async (t) => {
  const cause = new Error('SELECT secret FROM nodes');
  const wrapped = toCoreError(cause);
  t.equal(wrapped.code, 'INTERNAL');
  t.equal(wrapped.cause, cause);
  t.same(JSON.parse(errorBody(wrapped)), {
    error: { code: 'INTERNAL', message: 'Internal error' },
  });
  const issues = [{ path: 'entries[0].userId', message: 'no' }];
  t.same(JSON.parse(errorBody(new CoreError('VALIDATION_FAILED', 'bad', { issues }))), {
    error: { code: 'VALIDATION_FAILED', message: 'bad', issues },
  });
});

t.test('a store that cannot be reached is not an internal error', async (t) => {
  const withCode = (code: string): Error => Object.assign(new Error('x'), { code });
  for (const away of [
    withCode('ECONNREFUSED'),
    withCode('57P01'),
    withCode('53100'),
    withCode('40P01'),
    new AggregateError([withCode('ECONNREFUSED')]),
    new Error('Connection terminated unexpectedly'),
    new Error("OOM command not allowed when used memory > 'maxmemory'."),
    new Error("Stream isn't writeable and enableOfflineQueue options is false"),
  ]) {
    const error = classifyFailure(away);
    t.equal(error.code, 'STORE_UNAVAILABLE', String(away));
    t.equal(error.cause, away);
    t.equal(error.headers['Retry-After'], '2');
  }
  for (const fault of [withCode('42P01'), new TypeError('x is not a function'), 'text']) {
    t.equal(classifyFailure(fault).code, 'INTERNAL');
  }
});

t.test('the log of an error of Redis has no arguments of its command', async (t) => {
  const redis = new Redis(process.env['CORE_TEST_REDIS_URL'] ?? '', { lazyConnect: true });
  t.teardown(() => redis.disconnect());
  const thrown = await redis.call('AUTH', 'nobody', 'of-a-password').catch((error) => error);
  t.match(thrown, { command: { args: ['nobody', 'of-a-password'] } }, 'the client has them');
  for (const error of [thrown, new AggregateError([thrown])]) {
    const logged = JSON.stringify(serializeError(error));
    t.match(logged, '"command":{"name":"AUTH"}');
    t.notMatch(logged, 'of-a-password');
  }
});
