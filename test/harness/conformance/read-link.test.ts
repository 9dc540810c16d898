import t from 'tap';
import { readLink } from './read-link.ts';
import { xrayOutbound } from './xray-client.ts';

const id = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11';

t.test('a link is read by what its scheme means', async (t) => {
  t.match(
    readLink(`vless://${id}@[2001:db8::1]:443?type=ws&security=tls&path=%2Fa%20b&sni=x#n%201`),
    {
      protocol: 'vless',
      host: '2001:db8::1',
      port: 443,
      name: 'n 1',
      id,
      encryption: 'none',
      stream: { network: 'ws', security: 'tls', path: '/a b', sni: 'x', host: undefined },
    },
  );
  t.match(readLink('trojan://p%40ss%2F@h:1'), {
    password: 'p@ss/',
    stream: { network: 'tcp', security: 'tls' },
  });
  const fields = { v: '2', ps: 'n', add: 'h', port: '1', id, net: 'grpc', path: 's', type: 'gun' };
  const vmess = Buffer.from(JSON.stringify(fields)).toString('base64');
  t.match(readLink(`vmess://${vmess}`), {
    protocol: 'vmess',
    encryption: 'auto',
    stream: { network: 'grpc', serviceName: 's', path: undefined, mode: 'gun', alpn: undefined },
  });
  const method = '2022-blake3-aes-128-gcm';
  t.match(readLink(`ss://${method}:AA%3D%3D%3ABB%3D%3D@h:1`), { method, password: 'AA==:BB==' });
  t.match(readLink('hysteria2://a%3Ab@h:1/?sni=x'), { password: 'a:b', sni: 'x' });
});

t.test('a link with something that nobody would read is refused', async (t) => {
  const refusals: [uri: string, reason: RegExp][] = [
    [`vless://${id}@h:1?type=tcp&typo=1`, /unknown parameters: typo/],
    [`vless://${id}@h:1?type=tcp&type=ws`, /twice/],
    [`vless://${id}@h:1?type=quic`, /type=quic is not known/],
    [`vless://${id}@h:1?security=xtls`, /security=xtls is not known/],
    [`vless://${id}@h:1?path=/a+b`, /percent-encoded/],
    [`vless://${id}@h:1/x`, /has a path/],
    ['tg://proxy?server=h&port=1&secret=dd', /no client of this run takes tg links/],
  ];
  for (const [uri, reason] of refusals) t.throws(() => readLink(uri), reason, uri);
});

t.test('the Xray client does what the link says, and nothing else', async (t) => {
  const link = `vless://${id}@h:1?security=reality&pbk=k&sid=ab&sni=x&fp=chrome&flow=xtls-rprx-vision`;
  t.same(xrayOutbound('o', readLink(link)), {
    tag: 'o',
    protocol: 'vless',
    settings: {
      vnext: [
        { address: 'h', port: 1, users: [{ id, encryption: 'none', flow: 'xtls-rprx-vision' }] },
      ],
    },
    streamSettings: {
      network: 'raw',
      security: 'reality',
      realitySettings: { serverName: 'x', fingerprint: 'chrome', publicKey: 'k', shortId: 'ab' },
    },
  });
});
