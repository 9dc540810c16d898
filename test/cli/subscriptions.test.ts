import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2, connectTimeoutMs: 60_000 });

const { core, json } = commandLine(stores.environment);

t.before(async () => {
  await json('migrate');
  await json('node', 'create', '--name', 'n');
  await json('protocol', 'add', '--node', '1', '--protocol', 'VLESS', '--port', '443');
  await json('user', 'create', '--name', 'alice');
});

t.test('create, set, disable, enable, reset, history', async (t) => {
  const period = ['--reset', 'month', '--anchor', '2024-01-31T06:00:00Z'];
  await json('subscription', 'create', '--user', '1', '--limit', '1GB', ...period);
  t.match(await json('subscription', 'show', '1'), {
    resetPeriod: 'month',
    anchorAt: '2024-01-31T06:00:00.000Z',
    nextResetAt: /T06:00:00\.000Z$/,
  });
  const set = ['subscription', 'set', '1'];
  t.match(await json(...set, '--limit', '2GB', '--expires', '2040-01-01T00:00:00Z'), {
    trafficLimitBytes: 2_000_000_000,
    expiresAt: '2040-01-01T00:00:00.000Z',
    resetPeriod: 'month',
  });
  t.match(await json(...set, '--limit', 'none', '--expires', 'never', '--reset-period', 'none'), {
    trafficLimitBytes: null,
    expiresAt: null,
    resetPeriod: 'none',
    nextResetAt: null,
  });
  t.match(await json('subscription', 'disable', '1'), { status: 'disabled' });
  t.match(await json('subscription', 'enable', '1'), { status: 'active' });
  t.match(await json('subscription', 'reset', '1'), { usedBytes: 0 });
  t.match(await json('subscription', 'history', '1'), [{ cause: 'operator', dueAt: null }]);
  t.match((await core('subscription', 'history', '1')).stdout, /^resetAt +cause +dueAt/);
  const kinds = (await json<{ kind: string }[]>('event', 'list', '--subscription', '1')).map(
    (event) => event.kind,
  );
  t.same(kinds, [
    'created',
    'limit_changed',
    'expiry_changed',
    'limit_changed',
    'expiry_changed',
    'period_changed',
    'disabled',
    'enabled',
    'reset',
  ]);
  t.match(await json('event', 'list', '--after', '8'), [{ eventId: 9, kind: 'reset' }]);
  t.match((await core('event', 'list', '--subscription', '9')).stdout, 'There are no events.');
});

t.test('links, delete, users', async (t) => {
  const [link] = await json<{ uuid: string }[]>('link', 'list', '--subscription', '1');
  const { uuid } = link ?? {};
  t.match(await json('link', 'rotate', uuid?.toUpperCase() ?? '', '--yes'), { uuid });
  const which = ['--subscription', '1', '--protocol', '1'];
  t.match(await json('link', 'rotate', ...which, '--yes'), { uuid });
  t.match(await json('subscription', 'rotate', '1', '--yes'), [{ uuid }]);
  for (const wrong of [[], ['--subscription', '1'], [uuid ?? '', ...which]]) {
    t.match(
      (await core('link', 'show', ...wrong)).stderr,
      /^core: Name the link by its UUID, or by/,
    );
  }
  t.match(await json('user', 'rename', '1', '--name', 'bob'), { userId: 1, name: 'bob' });
  t.match(await json('user', 'show', '1'), { name: 'bob', subscriptions: 1 });
  const refused = await core('user', 'delete', '1');
  t.equal(refused.exitCode, 1);
  t.match(refused.stderr, /^core: User 1 has active subscriptions \(1\)/);
  t.match(await json('subscription', 'delete', '1', '--yes'), { subscriptionId: 1, deleted: true });
  t.match(await json('user', 'delete', '1', '--yes'), {
    userId: 1,
    subscriptions: 0,
    deleted: true,
  });
});

t.test('a credential comes from a file or from stdin', async (t) => {
  await json('user', 'create', '--name', 'carol');
  const file = path.join(t.testdir({}), 'credential.txt');
  writeFileSync(file, 'of a file\r\n');
  const create = ['subscription', 'create', '--user', '2'];
  await json(...create, '--credential', `@${file}`);
  const piped = (input: string) => commandLine(stores.environment, { input });
  await piped(' of stdin \n').json(...create, '--credential', '-');
  const stored = async () => {
    const { rows } = await stores.pool.query<{ credential: string | null }>(
      'SELECT credential FROM subscriptions WHERE user_id = 2 ORDER BY id',
    );
    return rows.map((row) => row.credential);
  };
  t.same(await stored(), ['of a file', ' of stdin ']);
  const set = ['subscription', 'set', '2', '--credential'];
  writeFileSync(file, 'none');
  t.match(await json(...set, `@${file}`), { hasGivenCredential: true });
  t.same(await stored(), ['none', ' of stdin '], 'a file that says none holds a credential');
  t.match(await piped('other').json(...set, '-'), { hasGivenCredential: true });
  t.same(await stored(), ['other', ' of stdin ']);
  const refused: [given: string, input: string, message: RegExp][] = [
    ['-', '', /^core: --credential from stdin: It must not be empty\.$/m],
    ['-', 'two\nlines\n', /--credential from stdin: It must not hold control characters/],
    ['-', 'x'.repeat(5_000), /--credential from stdin: It has over 4096 bytes/],
    [`@${file}.gone`, '', /--credential .*The file cannot be read/],
    ['@', '', /--credential .*The file cannot be read/],
  ];
  for (const [given, input, message] of refused) {
    const run = await piped(input).core(...set, given);
    t.equal(run.exitCode, 1);
    t.match(run.stderr, message);
    t.notMatch(run.stderr, 'two');
  }
  t.same(await stored(), ['other', ' of stdin ']);
});

t.test('impossible arguments are refused', async (t) => {
  const faults: [args: string[], message: RegExp][] = [
    [['subscription', 'set', '1'], /Nothing to set/],
    [['subscription', 'set', '1', '--limit', '0'], /--limit/],
    [['subscription', 'set', '1', '--expires', 'soon'], /--expires/],
    [['subscription', 'set', '1', '--reset-period', 'year'], /one of none, day, week, month/],
    [['subscription', 'set', '1', '--limit', 'none'], /There is no subscription 1/],
    [['subscription', 'history', '1'], /There is no subscription 1/],
    [['subscription', 'delete', '1'], /There is no subscription 1/],
    [['link', 'list', '--subscription', '1'], /There is no subscription 1/],
    [['link', 'rotate', 'x'], /must be a UUID/],
    [['link', 'rotate', '00000000-0000-4000-8000-000000000000'], /There is no link/],
    [['user', 'show', '1'], /There is no user 1/],
  ];
  for (const [args, message] of faults) {
    const run = await core(...args);
    t.equal(run.exitCode, 1, args.join(' '));
    t.match(run.stderr, message);
  }
});
