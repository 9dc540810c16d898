import t from 'tap';
import { createNode } from '../../src/nodes/change.ts';
import { readNodeRows } from '../../src/publish/read-rows.ts';
import { renderNodeConfig } from '../../src/render/render.ts';
import { addProtocol, setProtocol } from '../../src/settings/protocols.ts';
import { setXraySettings } from '../../src/settings/xray-settings.ts';
import { openStores } from '../support/stores.ts';

const { pool } = await openStores(t, { max: 4 });

let nodeId = 0;
t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
  const node = { name: 'n', region: '', host: 'h', ip: '' };
  nodeId = (await createNode(pool, node, { registrationSeconds: 60 })).nodeId;
});

const socks = (tag: string, port: number | string, more: Record<string, unknown> = {}) => ({
  tag,
  port,
  protocol: 'socks',
  settings: {},
  ...more,
});
const set = (...inbounds: object[]) => setXraySettings(pool, nodeId, { raw: { inbounds } });
const vless = (port: number, settings: Record<string, unknown> = {}) =>
  addProtocol(pool, { nodeId, protocol: 'VLESS', port, settings });

async function rendered() {
  const client = await pool.connect();
  try {
    const rows = await readNodeRows(client, nodeId);
    if (rows === undefined) throw new Error('the node is gone');
    return renderNodeConfig(rows).services.xray;
  } finally {
    client.release();
  }
}

t.test('an inbound of raw takes no port, tag or socket that another one has', async (t) => {
  await vless(443);
  await vless(1, { listen: '/run/vless.sock' });
  const cases: [() => Promise<unknown>, RegExp][] = [
    [
      () => set(socks('a', 443)),
      /^Node 1: inbound a of raw takes TCP port 443, which protocol 1 \(VLESS\) has$/,
    ],
    [() => set(socks('a', '400-500', { Listen: '127.0.0.1' })), /a of raw takes TCP port 443/],
    [
      () => set(socks('a', 2, { listen: '/run/vless.sock,0666' })),
      /takes the unix socket \/run\/vless\.sock, which protocol 2/,
    ],
    [() => set(socks('a', 9_000), socks('a', 9_001)), /inbound a comes twice/],
    [
      () => set(socks('a', 9_000), socks('b', '8000-9500')),
      /b of raw takes TCP port 9000, which inbound a of raw has/,
    ],
    [
      () =>
        setXraySettings(pool, nodeId, {
          raw: { metrics: { listen: '127.0.0.1:9000' }, inbounds: [socks('a', 9_000)] },
        }),
      /inbound metrics of raw takes TCP port 9000/,
    ],
    [() => set(socks('api', 9_000)), /Must not have tags that begin with in-, or the tag api/],
    [() => set(socks('in-1', 9_000)), /Must not have tags that begin with in-/],
    [() => set(socks('a', '1024-65535')), /leave no port for the api of Xray/],
  ];
  for (const [work, message] of cases) {
    await t.rejects(work(), { code: 'INVALID_ARGUMENT', message });
  }
  await set(
    socks('a', 9_000, { listen: '127.0.0.1' }),
    socks('b', 9_000, { listen: '127.0.0.2' }),
    { tag: 'wg', port: 443, protocol: 'wireguard', settings: {} },
  );
});

t.test('nor does a protocol take the port of an inbound of raw', async (t) => {
  await set(socks('a', 9_000));
  const message = 'Node 1: inbound a of raw takes TCP port 9000, which protocol 1 (VLESS) has';
  await t.rejects(vless(9_000), { code: 'INVALID_ARGUMENT', message });
  const { nodeProtocolId } = await vless(443);
  await t.rejects(setProtocol(pool, nodeProtocolId, { port: 9_000 }), {
    code: 'INVALID_ARGUMENT',
    message: /inbound a of raw takes TCP port 9000/,
  });
});

t.test('the api of Xray makes room for an inbound of raw', async (t) => {
  await vless(443);
  t.equal((await rendered())?.api.listen, '127.0.0.1:10085');
  await set(socks('a', '10080-10090'));
  t.equal((await rendered())?.api.listen, '127.0.0.1:10091');
});

t.test(
  'a conflict from an earlier build refuses changes of the node until it is mended',
  async (t) => {
    await vless(443);
    const raw = { inbounds: [socks('a', 443)] };
    await pool.query('UPDATE nodes SET xray_settings = $1', [{ raw }]);
    const refusal = {
      code: 'INVALID_ARGUMENT',
      message: 'Node 1: inbound a of raw takes TCP port 443, which protocol 1 (VLESS) has',
    };
    await t.rejects(vless(8_443), refusal);
    await t.rejects(setProtocol(pool, 1, { settings: { security: 'none' } }), refusal);
    t.ok(await rendered(), 'the node still gets its configuration');
    await set(socks('a', 9_000));
    await vless(8_443);
  },
);
