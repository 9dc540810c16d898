import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { commandLine } from '../support/cli.ts';
import { scratchFolder } from '../support/scratch-folder.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2, connectTimeoutMs: 60_000 });
const { core, json } = commandLine({
  ...stores.environment,
  CORE_SUBSCRIPTION_PAGES: 'true',
  CORE_PAGE_URL: 'https://core.example.net/',
});
const page = (...args: string[]) => core('subscription', 'page', ...args);
const address = /^https:\/\/core\.example\.net\/sub\/[\w-]{24}$/;

t.before(async () => {
  await json('migrate');
  await json('user', 'create', '--name', 'alice');
  for (let made = 0; made < 4; made += 1) await json('subscription', 'create', '--user', '1');
});

t.test('create, show, rotate, remove', async (t) => {
  const made = await json<{ url: string }>('subscription', 'page', 'create', '1');
  t.match(made, { subscriptionId: 1, url: address });
  t.match((await page('show', '1')).stdout, /^subscriptionId +1\ntokenSince +20/);
  const again = await page('create', '1');
  t.equal(again.exitCode, 1);
  t.match(again.stderr, 'core subscription page rotate 1');

  t.match((await page('rotate', '1')).stderr, 'give --yes to do it');
  const next = await json<{ url: string }>('subscription', 'page', 'rotate', '1', '--yes');
  t.match(next.url, address);
  t.not(next.url, made.url);
  t.match(await json('subscription', 'page', 'remove', '1', '--yes'), { removed: true });
  for (const command of ['show', 'rotate', 'remove']) {
    t.match((await page(command, '1')).stderr, 'core subscription page create 1');
  }
  t.match((await page('create', '99')).stderr, 'There is no subscription 99');
});

t.test('a token of another panel', async (t) => {
  const given = 'Ab3dEf6hIj9kLm2n';
  t.match((await page('create', '2', '--token', given)).stdout, `/sub/${given}\n`);
  t.match(
    (await page('create', '3', '--token', given)).stderr,
    'Another subscription has this token',
  );
  t.match((await page('create', '3', '--token', 'short')).stderr, 'It must be 16 to 64');
});

t.test('a token comes from stdin', async (t) => {
  const input = 'Zb3dEf6hIj9kLm2n';
  const create = ['subscription', 'page', 'create', '3', '--token', '-'];
  const short = await commandLine(stores.environment, { input: 'short' }).core(...create);
  t.match(short.stderr, '--token from stdin: It must be 16 to 64');
  const made = await commandLine(stores.environment, { input: `${input}\n` }).core(...create);
  t.match(made.stdout, `/sub/${input}\n`);
  await json('subscription', 'page', 'remove', '3', '--yes');
});

t.test('all that have none, into a file that only its owner reads', async (t) => {
  const file = path.join(scratchFolder(t), 'pages.csv');
  t.match((await page('create', '--all')).stderr, '--all with --file');
  t.match((await page('create', '1', '--file', file)).stderr, 'Give the id of a subscription');
  t.match(await json('subscription', 'page', 'create', '--all', '--file', file), { pages: 3 });
  t.equal(statSync(file).mode & 0o777, 0o600);
  const [header, ...lines] = readFileSync(file, 'utf8').trimEnd().split('\n');
  t.equal(header, 'subscription_id,user_id,url');
  t.same(
    lines.map((line) => line.split(',').slice(0, 2)),
    [
      ['1', '1'],
      ['3', '1'],
      ['4', '1'],
    ],
  );
  for (const line of lines) t.match(line.split(',')[2], address);
  writeFileSync(file, 'kept');
  t.match((await page('create', '--all', '--file', file)).stderr, 'exists already');
  t.equal(readFileSync(file, 'utf8'), 'kept');
});

t.test('no page is made if the file cannot be written', async (t) => {
  await json('subscription', 'page', 'remove', '4', '--yes');
  const file = path.join(scratchFolder(t), 'nowhere', 'pages.csv');
  const failed = await page('create', '--all', '--file', file);
  t.match(failed.stderr, 'so no page was made');
  t.notOk(existsSync(file));
  t.match((await page('show', '4')).stderr, 'has no page');
});

t.test('a subscription is created with its page', async (t) => {
  const create = ['subscription', 'create', '--user', '1', '--page'];
  const made = await json<{ subscriptionId: number; url: string }>(...create);
  t.match(made, { subscriptionId: 5, url: address, links: [] });
  t.match(await json('subscription', 'page', 'show', '5'), { tokenSince: /^20/ });
  t.match((await core(...create)).stdout, /^subscriptionId +6\nurl +https:.*\/sub\/[\w-]{24}\n\n/);
  t.equal((await core('subscription', 'create', '--user', '9', '--page')).exitCode, 1);
  const { rows } = await stores.pool.query(
    'SELECT FROM subscription_pages WHERE subscription_id > 6',
  );
  t.same(rows, [], 'no half of it stays');
});

t.test('an address that nobody serves yet comes with a hint', async (t) => {
  const off = commandLine(stores.environment);
  const made = await off.core('subscription', 'page', 'create', '4');
  t.match(made.stdout, /http:\/\/127\.0\.0\.1:\d+\/sub\/[\w-]{24}\nCore serves it once/);
});
