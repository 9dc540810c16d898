import t from 'tap';
import { commandLine } from '../support/cli.ts';
import { freshStores } from '../support/stores.ts';

// The runs hysteria2-odd-password and hysteria2-user-password of `npm run conformance` show both on mihomo.

const stores = await freshStores(t);
const { core, json } = commandLine(stores.environment);
const warned = /Warning: mihomo and the apps on it misread the password/;
const tls = { certificateFile: '/etc/core/cert.pem', keyFile: '/etc/core/key.pem' };

t.before(async () => {
  await json('migrate');
  await json('node', 'create', '--name', 'ams-1', '--host', 'ams-1.example.net');
  const settings = ['--port', '8443', '--settings', JSON.stringify({ tls })];
  await json('protocol', 'add', '--node', '1', '--protocol', 'hysteria2', ...settings);
  await json('user', 'create', '--name', 'alice');
});

t.test('who gives a password that mihomo misreads in a link learns it', async (t) => {
  const create = (credential: string) =>
    core('subscription', 'create', '--user', '1', '--credential', credential);
  t.match((await create('pass word')).stdout, warned);
  t.notMatch((await create('alice:p-1=')).stdout, 'Warning');
  const set = (...options: string[]) => core('subscription', 'set', '2', ...options);
  t.match((await set('--credential', 'p@ss')).stdout, warned);
  t.match(await json('subscription', 'set', '2', '--credential', 'p@ss'), {
    warnings: [/^mihomo/],
  });
  t.notMatch((await set('--credential', 'alice:p-1=')).stdout, 'Warning');
  t.notMatch((await set('--limit', '1GB')).stdout, 'Warning');
});

t.test('links that mihomo misreads are shown with a warning', async (t) => {
  const odd = ['--subscription', '1', '--protocol', '1'];
  t.match((await core('link', 'show', ...odd)).stderr, warned);
  t.match(await json('link', 'show', ...odd), { warnings: [/^mihomo/] });
  t.match((await core('link', 'list', '--subscription', '1', '--uri')).stderr, warned);
  const plain = await core('link', 'list', '--subscription', '2', '--uri');
  t.equal(plain.stderr, '');
  t.match(plain.stdout, 'hysteria2://alice:p-1%3D@ams-1.example.net:8443/');
});
