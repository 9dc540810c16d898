import t from 'tap';
import { createNode, revokeNode } from '../../src/nodes/change.ts';
import { protocolEffects } from '../../src/nodes/effects.ts';
import { transportsOf } from '../../src/settings/port-transports.ts';
import { addProtocol, listProtocols, setProtocol } from '../../src/settings/protocols.ts';
import { marksOf } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60 };
const { pool } = await openStores(t, { max: 4 });
const tls = { certificateFile: '/c', keyFile: '/k' };

let nodeId = 0;
t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
  nodeId = (await createNode(pool, { name: 'n', region: '', host: 'h', ip: '' }, options)).nodeId;
});

type Added = Parameters<typeof addProtocol>[1];
const add = (protocol: Added['protocol'], port: number, settings: Added['settings'] = {}) =>
  addProtocol(pool, { nodeId, protocol, port, settings });

t.test('a new protocol gets a link for every subscription, or is refused', async (t) => {
  await pool.query("INSERT INTO users (name) VALUES ('u')");
  await pool.query(
    "INSERT INTO subscriptions (user_id, status) VALUES (1, 'active'), (1, 'expired'), (1, 'active')",
  );
  await pool.query(
    `INSERT INTO subscription_groups (group_id, subscription_id)
     SELECT g.id, s.id FROM groups g CROSS JOIN subscriptions s`,
  );
  const vless = { nodeId, protocol: 'VLESS', port: 443, settings: {} } as const;
  const { nodeProtocolId } = await addProtocol(pool, vless);
  t.match(await listProtocols(pool, { nodeId }), [
    { nodeProtocolId, nodeId, protocol: 'VLESS', port: 443, groups: ['default'] },
  ]);
  t.equal(await marksOf(pool, nodeId), 1);
  t.equal((await protocolEffects(pool, nodeProtocolId)).links, 3, 'one each, active or not');

  await t.rejects(addProtocol(pool, { ...vless, protocol: 'TROJAN' }), {
    code: 'INVALID_ARGUMENT',
    message: `TCP port 443 of node ${nodeId} is taken by protocol ${nodeProtocolId} (VLESS)`,
  });
  await t.rejects(addProtocol(pool, { ...vless, port: 444, settings: { security: 'odd' } }), {
    code: 'INVALID_ARGUMENT',
  });
  await t.rejects(addProtocol(pool, { ...vless, port: 444, protocol: 'HYSTERIA2' }), {
    code: 'INVALID_ARGUMENT',
  });
  await t.rejects(addProtocol(pool, { ...vless, nodeId: 99 }), { code: 'NOT_FOUND' });
  t.equal((await listProtocols(pool, {})).length, 1, 'nothing was added');
  await revokeNode(pool, nodeId);
  await t.rejects(addProtocol(pool, { ...vless, port: 444 }), { code: 'INVALID_ARGUMENT' });
});

t.test('the columns of node_protocols agree with transportsOf', async (t) => {
  const kinds: [protocol: Added['protocol'], settings: Added['settings']][] = [
    ['VLESS', {}],
    ['VMESS', { network: 'ws' }],
    ['TROJAN', { network: 'grpc' }],
    ['MTPROTO', {}],
    ['HYSTERIA2', { tls }],
    ['SHADOWSOCKS', {}],
    ['SHADOWSOCKS', { network: 'tcp,udp' }],
    ['SHADOWSOCKS', { network: 'tcp' }],
    ['SHADOWSOCKS', { network: 'udp' }],
  ];
  for (const [index, [protocol, settings]] of kinds.entries()) {
    const { nodeProtocolId } = await add(protocol, 1_000 + index, settings);
    const bare = await pool.query<{ id: number }>(
      `INSERT INTO node_protocols (node_id, protocol, port, settings) VALUES ($1, $2, $3, $4)
       RETURNING id`,
      [nodeId, protocol, 2_000 + index, JSON.stringify(settings)],
    );
    for (const id of [nodeProtocolId, bare.rows[0]?.id]) {
      const { rows } = await pool.query<{ transports: string[]; settings: object }>(
        `SELECT array_remove(ARRAY[CASE WHEN listens_tcp THEN 'tcp' END,
           CASE WHEN listens_udp THEN 'udp' END], NULL) AS transports, settings
         FROM node_protocols WHERE id = $1`,
        [id],
      );
      t.same(rows[0]?.transports, transportsOf(protocol, { ...rows[0]?.settings }), protocol);
    }
  }
});

t.test('a protocol on TCP and one on UDP may share a port', async (t) => {
  const vless = await add('VLESS', 443);
  const hysteria = await add('HYSTERIA2', 443, { tls });
  const refusals: [work: () => Promise<unknown>, message: string][] = [
    [() => add('TROJAN', 443), 'TCP port 443 of node 1 is taken by protocol 1 (VLESS)'],
    [
      () => add('HYSTERIA2', 443, { tls }),
      'UDP port 443 of node 1 is taken by protocol 2 (HYSTERIA2)',
    ],
    [() => add('SHADOWSOCKS', 443), 'TCP port 443 of node 1 is taken by protocol 1 (VLESS)'],
    [
      () => add('SHADOWSOCKS', 443, { network: 'udp' }),
      'UDP port 443 of node 1 is taken by protocol 2 (HYSTERIA2)',
    ],
  ];
  for (const [work, message] of refusals) {
    await t.rejects(work(), { code: 'INVALID_ARGUMENT', message });
  }
  t.match(await listProtocols(pool, { nodeId }), [vless, hysteria]);
});

t.test('protocols on different addresses may share a port', async (t) => {
  await add('VLESS', 443, { listen: '198.51.100.7' });
  await add('VLESS', 443, { listen: '198.51.100.8' });
  await add('VLESS', 443, { listen: '2001:db8:0::7' });
  const refusals: [listen: string | undefined, message: string][] = [
    ['198.51.100.8', 'TCP port 443 of node 1 is taken by protocol 2 (VLESS on 198.51.100.8)'],
    [
      '::ffff:198.51.100.7',
      'TCP port 443 of node 1 is taken by protocol 1 (VLESS on 198.51.100.7)',
    ],
    ['2001:DB8::7', 'TCP port 443 of node 1 is taken by protocol 3 (VLESS on 2001:db8:0::7)'],
    ['::', 'TCP port 443 of node 1 is taken by protocol 1 (VLESS on 198.51.100.7)'],
    ['0.0.0.0', 'TCP port 443 of node 1 is taken by protocol 1 (VLESS on 198.51.100.7)'],
    [undefined, 'TCP port 443 of node 1 is taken by protocol 1 (VLESS on 198.51.100.7)'],
  ];
  for (const [listen, message] of refusals) {
    await t.rejects(add('TROJAN', 443, { ...(listen === undefined ? {} : { listen }) }), {
      code: 'INVALID_ARGUMENT',
      message,
    });
  }
  await add('HYSTERIA2', 443, { tls });
});

t.test('a unix socket takes no port, and only one protocol has it', async (t) => {
  await add('VLESS', 443, { listen: '/run/core/a.sock,0660' });
  await add('VLESS', 443);
  await add('TROJAN', 443, { listen: '@a' });
  await t.rejects(add('VLESS', 8443, { listen: '/run/core/a.sock' }), {
    code: 'INVALID_ARGUMENT',
    message: 'The unix socket /run/core/a.sock of node 1 is taken by protocol 1 (VLESS)',
  });
  await t.rejects(add('VLESS', 8443, { listen: '@a' }), { message: /is taken by protocol 3/ });
});

t.test('a change of the port or the network needs a free port, too', async (t) => {
  await add('VLESS', 443);
  const { nodeProtocolId } = await add('SHADOWSOCKS', 8443, { network: 'udp' });
  await add('HYSTERIA2', 8444, { tls });
  const set = (change: Parameters<typeof setProtocol>[2]) =>
    setProtocol(pool, nodeProtocolId, change);
  await t.rejects(set({ port: 8444 }), {
    code: 'INVALID_ARGUMENT',
    message: 'UDP port 8444 of node 1 is taken by protocol 3 (HYSTERIA2)',
  });
  await set({ port: 443 });
  await t.rejects(set({ settings: { network: 'tcp,udp' } }), {
    code: 'INVALID_ARGUMENT',
    message: 'TCP port 443 of node 1 is taken by protocol 1 (VLESS)',
  });
  await set({ port: 8445, settings: { network: 'tcp,udp' } });
  await set({ settings: { network: 'tcp,udp', sniffing: false } });
  t.match((await listProtocols(pool, { nodeId }))[1], {
    port: 8445,
    settings: { network: 'tcp,udp', sniffing: false },
  });
});

t.test('the database refuses a taken port even without the check', async (t) => {
  const insert = (protocol: string) =>
    pool.query(
      "INSERT INTO node_protocols (node_id, protocol, port, settings) VALUES ($1, $2, 443, '{}')",
      [nodeId, protocol],
    );
  await insert('SHADOWSOCKS');
  await t.rejects(insert('VLESS'), { code: '23P01', constraint: 'node_protocols_tcp' });
  await t.rejects(insert('HYSTERIA2'), { code: '23P01', constraint: 'node_protocols_udp' });
});
