import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import type { NodeConfig } from '../../src/contract/node-config.ts';
import { readNodeRows } from '../../src/publish/read-rows.ts';
import { rollBackNode } from '../../src/publish/rollback.ts';
import { renderNodeConfig } from '../../src/render/render.ts';
import { commandLine } from '../support/cli.ts';
import { publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 4 });
const { pool } = stores;
const { core, json } = commandLine(stores.environment);

const rendered = async (): Promise<NonNullable<NodeConfig['services']['xray']>> => {
  const client = await pool.connect();
  try {
    const rows = await readNodeRows(client, 1);
    const xray = rows && renderNodeConfig(rows).services.xray;
    if (xray === undefined) throw new Error('the node has an inbound');
    return xray;
  } finally {
    client.release();
  }
};

t.test(
  'an outbound with a transport, and settings of Xray, from the command to the node',
  async (t) => {
    await json('node', 'create', '--name', 'n');
    await json('protocol', 'add', '--node', '1', '--protocol', 'VLESS', '--port', '443');
    const of = ['--node', '1', '--tag', 'up', '--protocol', 'trojan'];
    const settings = JSON.stringify({ address: 'up.example.com', port: 443, password: 'p1' });
    const bare = await core('outbound', 'add', ...of, '--settings', settings);
    t.equal(bare.exitCode, 1);
    t.match(
      bare.stderr,
      /^core: Invalid outbound up: settings\.address: Is public, so trojan needs/,
    );
    const stream = { security: 'tls', tlsSettings: { serverName: 'up.example.com' } };
    const raw = { streamSettings: { sockopt: { tcpNoDelay: true } } };
    await json('outbound', 'add', '--node', '1', '--tag', 'direct', '--protocol', 'freedom');
    await json(
      ...['outbound', 'add', ...of, '--settings', settings],
      ...['--stream-settings', JSON.stringify(stream), '--through', 'direct'],
      ...['--mux', '{"enabled":true}', '--raw', JSON.stringify(raw)],
    );
    t.match((await json<object[]>('outbound', 'list', '--node', '1'))[1], {
      settings: { address: 'up.example.com', password: '(secret)' },
      options: { streamSettings: stream, proxySettings: { tag: 'direct' }, raw: '(secret)' },
    });

    const file = path.join(t.testdir({}), 'xray.json');
    const xray = {
      dns: { servers: ['1.1.1.1'] },
      balancers: [{ tag: 'ups', selector: ['up'] }],
      raw: { log: { loglevel: 'none' } },
    };
    writeFileSync(file, JSON.stringify(xray));
    t.match((await core('xray', 'show', '--node', '1')).stdout, 'The node has none.');
    await json('xray', 'set', '--node', '1', '--settings', `@${file}`);
    t.same(await json('xray', 'show', '--node', '1', '--secrets'), xray);
    t.match(await json('xray', 'show', '--node', '1'), {
      raw: '(secret)',
      balancers: xray.balancers,
    });
    await json('rule', 'add', '--node', '1', '--rule', '{"port":25,"balancerTag":"ups"}');
    for (const [given, message] of [
      ['{"dns":{"server":[]}}', /Invalid settings of Xray: dns: Unrecognized key: "server"/],
      ['{}', /Node 1: rule 1 names the balancer ups, which the node does not have; it has none/],
    ] as const) {
      const run = await core('xray', 'set', '--node', '1', '--settings', given);
      t.equal(run.exitCode, 1);
      t.match(run.stderr, message);
    }

    const before = await rendered();
    t.match(before, {
      outbounds: [
        { tag: 'direct' },
        { tag: 'up', mux: { enabled: true }, streamSettings: { ...stream, ...raw.streamSettings } },
      ],
      routing: { rules: [{ balancerTag: 'ups' }], balancers: xray.balancers },
      dns: xray.dns,
      log: { loglevel: 'none' },
    });

    await publishNow(stores);
    await json('rule', 'remove', '1');
    await json('xray', 'set', '--node', '1', '--settings', '{}');
    await json('outbound', 'set', ...of.slice(0, 4), '--protocol', 'blackhole');
    await publishNow(stores);
    const after = await rendered();
    t.notMatch(JSON.stringify(after), /ups|loglevel|up\.example\.com/);
    await rollBackNode(pool, 1, 1);
    t.same(await rendered(), before, 'a rollback brings everything back');
  },
);
