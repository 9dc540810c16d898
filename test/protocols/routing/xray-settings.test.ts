import t from 'tap';
import { validateXraySettings } from '../../../src/protocols/routing/xray-settings.ts';

t.test('settings that Xray takes', async (t) => {
  const accepted: object[] = [
    {},
    { domainStrategy: 'IPIfNonMatch' },
    {
      dns: {
        servers: [
          '1.1.1.1',
          'localhost',
          'https+local://1.1.1.1/dns-query',
          {
            address: 'tcp://8.8.8.8',
            domains: ['geosite:google'],
            expectedIPs: ['geoip:us', '*'],
            tag: 'dns-in',
          },
        ],
        hosts: { 'domain:example.com': '127.0.0.1', 'a.b': ['10.0.0.1', '::1'], 'c.d': 'e.f' },
        queryStrategy: 'UseIPv4',
      },
    },
    {
      balancers: [
        {
          tag: 'ups',
          selector: ['up-'],
          strategy: { type: 'leastLoad', settings: { expected: 2, maxRTT: '1s' } },
        },
      ],
      burstObservatory: { subjectSelector: ['up-'], pingConfig: { interval: '30s', sampling: 3 } },
    },
    {
      raw: {
        log: { loglevel: 'warning' },
        inbounds: [{ tag: 'local', protocol: 'socks', port: 1080 }],
      },
    },
  ];
  for (const given of accepted) t.same(validateXraySettings(given), given, JSON.stringify(given));
});

t.test('settings that Xray refuses or takes for something else', async (t) => {
  const refused: [given: object, message: RegExp][] = [
    [{ domainStrategy: 'UseIP' }, /domainStrategy: Must be one of AsIs, IPIfNonMatch, IPOnDemand/],
    [{ dns: { servers: ['ftp://1.1.1.1'] } }, /dns\.servers\[0\]: /],
    [{ dns: { servers: [{ address: '1.1.1.1', expectedIPs: ['x'] }] } }, /dns\.servers\[0\]/],
    [
      { dns: { hosts: { 'regexp:(': '127.0.0.1' } } },
      /dns\.hosts\.regexp:\(: Must be a regular expression/,
    ],
    [{ dns: { clientIp: 'x' } }, /dns\.clientIp: Must be an IP address/],
    [{ dns: { query: 1 } }, /dns: Unrecognized key: "query"/],
    [{ balancers: [{ tag: 'a', selector: [] }] }, /balancers\[0\]\.selector: /],
    [
      { balancers: [{ tag: 'a', selector: ['b'], strategy: { type: 'best' } }] },
      /strategy\.type: Must be one of/,
    ],
    [
      { balancers: [{ tag: 'a', selector: ['b'], strategy: { type: 'random', settings: {} } }] },
      /strategy\.settings: Only go with type leastLoad/,
    ],
    [{ observatory: { subjectSelector: ['a'], probeInterval: 10 } }, /probeInterval: /],
    [{ burstObservatory: { subjectSelector: ['a'] } }, /pingConfig: /],
    [
      {
        observatory: { subjectSelector: ['a'] },
        burstObservatory: { subjectSelector: ['a'], pingConfig: {} },
      },
      /burstObservatory: Does not go with observatory/,
    ],
    [{ raw: { stats: {} } }, /raw\.stats: Is of Core/],
    [{ raw: { policy: {}, api: {} } }, /raw\.policy: Is of Core.*raw\.api: Is of Core/],
    [
      { raw: { inbounds: [{ tag: 'in-1' }] } },
      /raw\.inbounds: Must not have tags that begin with in-/,
    ],
    [{ raw: { Policy: {}, STATS: null } }, /raw\.Policy: Is of Core.*raw\.STATS: Is of Core/],
    [{ raw: { Inbounds: [] } }, /raw\.Inbounds: Must be written inbounds/],
    [{ raw: { routing: { Rules: [] } } }, /raw\.routing\.Rules: Must be written rules/],
    [{ raw: { Routing: {} } }, /raw\.Routing: Must be written routing/],
    [
      { raw: { inbounds: [{ tag: 'local', Tag: 'in-1' }] } },
      /raw\.inbounds\.Tag: Must be written tag/,
    ],
    [{ raw: { outbounds: {} } }, /raw\.outbounds: Must be a list/],
    [{ raw: { outbounds: [{ protocol: 'freedom' }] } }, /raw\.outbounds: Must have a tag/],
    [{ routing: {} }, /settings: Unrecognized key: "routing"/],
  ];
  for (const [given, message] of refused) {
    t.throws(
      () => validateXraySettings(given),
      { code: 'INVALID_ARGUMENT', message },
      JSON.stringify(given),
    );
  }
});
