import t from 'tap';
import { apiPort } from '../../src/protocols/api-port.ts';
import { rawListeners } from '../../src/protocols/raw-listeners.ts';

const inbound = (more: Record<string, unknown>) => ({ tag: 'x', protocol: 'http', ...more });
const listenersOf = (...inbounds: Record<string, unknown>[]) => rawListeners({ inbounds });
const transportsOf = (more: Record<string, unknown>) =>
  listenersOf(inbound(more)).map(({ transports }) => transports.join());

t.test('Core reads where an inbound of raw listens as Xray does', async (t) => {
  t.same(listenersOf(inbound({ PORT: '443, 1000-1002,env:P', Listen: '::ffff:127.0.0.1' })), [
    {
      tag: 'x',
      listen: '127.0.0.1',
      ports: [
        [443, 443],
        [1000, 1002],
      ],
      transports: ['tcp'],
    },
  ]);
  t.match(listenersOf(inbound({ port: 1 })), [{ listen: '0.0.0.0', ports: [[1, 1]] }]);
  t.match(listenersOf(inbound({ listen: '/run/x,0660', port: 1 })), [
    { listen: '/run/x', ports: [] },
  ]);
  t.match(rawListeners({ metrics: { listen: '[::1]:11111' } }), [
    { tag: 'metrics', listen: '::1', ports: [[11111, 11111]] },
  ]);
  t.same(rawListeners({ metrics: { tag: 'm' }, inbounds: [1] }), []);
  t.same(rawListeners(undefined), []);
});

t.test('each protocol listens on the transports that Xray gives it', async (t) => {
  const cases: [Record<string, unknown>, string][] = [
    [{ protocol: 'wireguard' }, 'udp'],
    [{ protocol: 'Hysteria' }, 'udp'],
    [{ protocol: 'tun' }, ''],
    [{ protocol: 'socks', settings: {} }, 'tcp'],
    [{ protocol: 'mixed', settings: { udp: true } }, 'tcp,udp'],
    [{ protocol: 'shadowsocks', settings: { network: 'tcp,udp' } }, 'tcp,udp'],
    [{ protocol: 'tunnel', settings: { allowedNetwork: ['udp'] } }, 'udp'],
    [{ protocol: 'dokodemo-door', settings: { network: 'tcp', allowedNetwork: 'udp' } }, 'tcp'],
    [{ protocol: 'vless', streamSettings: { network: 'KCP' } }, 'udp'],
    [{ protocol: 'vless', streamSettings: { method: 'xhttp' } }, 'tcp'],
    [
      { protocol: 'vless', streamSettings: { network: 'xhttp', tlsSettings: { alpn: ['h3'] } } },
      'udp',
    ],
  ];
  for (const [given, transports] of cases) t.same(transportsOf(given), [transports]);
});

t.test('the api of Xray gets a port that nothing else has', async (t) => {
  t.equal(apiPort([], []), 10_085);
  t.equal(apiPort([{ port: 10_085 }], listenersOf(inbound({ port: '10086-10088' }))), 10_089);
  t.equal(apiPort([], listenersOf(inbound({ port: '10085-65535' }))), 1_024);
  t.equal(apiPort([], listenersOf(inbound({ port: '1-65535' }))), undefined);
});
