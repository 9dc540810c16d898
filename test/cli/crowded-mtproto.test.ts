import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2 });
const { core, json } = commandLine(stores.environment);

t.test(
  'an MTProto protocol with more links than telemt counts is shown with a warning',
  async (t) => {
    await json('node', 'create', '--name', 'ams-1', '--host', 'ams-1.example.net');
    const add = (protocol: string, port: string, settings: object) =>
      core(
        'protocol',
        'add',
        '--node',
        '1',
        '--protocol',
        protocol,
        '--port',
        port,
        '--settings',
        JSON.stringify(settings),
      );
    await add('mtproto', '8443', { tlsDomain: 'www.example.com' });
    await add('vmess', '8080', {});
    const file = path.join(t.testdir({}), 'users.csv');
    const names = Array.from({ length: 4_096 }, (_, index) => `user-${index}`);
    writeFileSync(file, ['user', ...names].join('\n'));
    t.equal((await core('subscription', 'import', file)).exitCode, 0);
    const list = async () => (await core('protocol', 'list')).stdout;
    t.notMatch(await list(), 'active links');
    await json('subscription', 'create', '--user', '1');
    t.match(await list(), /Warning \(protocol 1\): It has 4097 active links/);
    t.match((await core('protocol', 'set', '1', '--port', '8444')).stdout, /4097 active links/);
  },
);
