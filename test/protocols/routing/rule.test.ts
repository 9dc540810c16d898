import t from 'tap';
import { issuePath } from '../../../src/errors.ts';
import { ruleSchema } from '../../../src/protocols/routing/rule.ts';

const faultsOf = (given: object): string[] => {
  const parsed = ruleSchema.safeParse({ outboundTag: 'block', ...given });
  return (parsed.error?.issues ?? []).map(
    (issue) => `${issuePath(issue.path, 'rule')}: ${issue.message}`,
  );
};

t.test('rules that Xray takes', async (t) => {
  const accepted: object[] = [
    {
      ip: [
        '10.0.0.0/8',
        '::1',
        '2001:db8::/32',
        'geoip:private',
        'geoip:!cn',
        '!192.0.2.1',
        'ext:my.dat:x',
      ],
    },
    { domain: ['example.com', 'domain:a.b', 'full:a.b', 'keyword:ads', 'dotless:', 'dotless:pc-'] },
    { domain: ['geosite:google@cn', 'geosite:category-ads-all', 'ext:my.dat:x@!cn'] },
    { domain: ['regexp:\\.goo(?:gle)?\\.com$', 'regexp:^(?P<name>a)\\pL+$'] },
    { port: '53,1000-2000', sourcePort: 1, localPort: '1', vlessRoute: '1-2' },
    { network: ['tcp', 'udp'], protocol: ['bittorrent'] },
    { user: ['0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11', 'regexp:^0b8f'] },
    { attrs: { ':method': '^GET$' }, process: ['curl', 'self/'] },
    {
      port: 1,
      webhook: { url: 'https://hook.example.com/a', deduplication: 60, headers: { 'X-A': 'b' } },
    },
    { port: 1, outboundTag: undefined, balancerTag: 'ups' },
  ];
  for (const given of accepted) t.same(faultsOf(given), [], JSON.stringify(given));
});

t.test('rules that Xray refuses, or that would never match', async (t) => {
  const refused: [given: object, fault: string | RegExp][] = [
    [{ ip: ['not-an-ip'] }, /^ip\[0\]: Must be an address, a prefix like/],
    [{ ip: ['10.0.0.0/33'] }, 'ip[0]: Must have a prefix length from 0 to 32'],
    [{ ip: ['::ffff:10.0.0.1/64'] }, 'ip[0]: Must have a prefix length from 0 to 32'],
    [{ ip: ['fe80::1%eth0'] }, /^ip\[0\]: /],
    [{ ip: ['geoip:'] }, 'ip[0]: Must have a name, like geoip:private'],
    [{ ip: ['ext:cn'] }, 'ip[0]: Must have a name, like ext:file.dat:code'],
    [{ source: ['x'] }, /^source\[0\]: /],
    [{ domain: ['geosite:'] }, 'domain[0]: Must have a name, like geosite:google'],
    [{ domain: ['geosite:google@'] }, /^domain\[0\]: Must have a name/],
    [
      { domain: ['regexp:('] },
      "domain[0]: Must be a regular expression in Go's syntax: missing closing ): `(`",
    ],
    [{ domain: ['regexp:(?=a)'] }, /^domain\[0\]: Must be a regular expression in Go's syntax/],
    [{ domain: ['regexp:(a)\\1'] }, /^domain\[0\]: Must be a regular expression in Go's syntax/],
    [{ domain: ['dotless:a.b'] }, 'domain[0]: Must have no dot after dotless:'],
    [{ domain: ['subdomain:a'] }, /^domain\[0\]: Must begin with domain:/],
    [{ domain: [''] }, /^domain\[0\]: /],
    [{ domain: [] }, /^domain: /],
    [{ port: '1-' }, /^port: Must be ports/],
    [{ port: '9-8' }, /^port: Must be ports/],
    [{ network: 'icmp' }, 'network: Must be tcp, udp, or tcp,udp'],
    [{ user: ['alice@example.com'] }, /^user\[0\]: Must be the UUID of a link/],
    [{ attrs: { a: '(' } }, /^attrs\.a: Must be a regular expression/],
    [{ port: 1, webhook: { url: 'ftp://a' } }, 'webhook.url: Must be a URL with http or https'],
    [{ port: 1, prot: 1 }, 'rule: Unrecognized key: "prot"'],
    [{ port: 1, balancerTag: 'b' }, 'rule: Needs either outboundTag or balancerTag'],
    [{ port: 1, outboundTag: undefined }, 'rule: Needs either outboundTag or balancerTag'],
    [{}, /^rule: Needs a condition/],
    [{ domain: ['a'], domains: ['b'] }, /^domains: Does not go with domain/],
  ];
  for (const [given, fault] of refused) {
    const [first = 'accepted'] = faultsOf(given);
    t.match(first, fault, JSON.stringify(given));
  }
});
