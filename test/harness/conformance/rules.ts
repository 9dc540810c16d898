import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { issuePath } from '../../../src/errors.ts';
import { ruleSchema } from '../../../src/protocols/routing/rule.ts';
import { xraySettingsSchema } from '../../../src/protocols/routing/xray-settings.ts';
import { writeGeoFiles } from './geo-files.ts';
import type { ComparisonResult } from './outbounds.ts';
import { refusedParts, xrayRefusal } from './xray-verdict.ts';

// Core's check of rules, and of DNS and balancers, against a real Xray.

type Json = Record<string, unknown>;

/** Reasons for which Core refuses what Xray takes: a text of Core's messages, or the place. */
const ownReasons: readonly (readonly [message: RegExp, why: string])[] = [
  [/Unrecognized key/, 'Xray ignores a field that it does not know'],
  [
    /^Must be the UUID of a link|^user\[/,
    'such a user, or a broken expression for users, matches nobody',
  ],
  [
    /^Must be (ports|tcp, udp)/,
    'Xray takes an empty list or an unknown network, which match nothing',
  ],
  [
    /^Must be a domain|^Must have a domain|^Must begin with|^Too small/,
    'Xray takes any text, which matches nothing',
  ],
  [/^Must be one of|^Invalid option|^Only go with/, 'Xray takes an unknown word as its default'],
  [/^Too big/, 'Xray takes a port above 65535 if it is a number'],
  [/^Needs either/, 'Xray ignores the balancer if there is an outbound'],
  [/^Must be an address, localhost/, 'Xray takes an unknown scheme as the name of a DNS server'],
  [
    /^Invalid input|^Must be a (URL|duration|host)/,
    'Xray takes any text and number here and there',
  ],
];

const list = (good: readonly string[], odd: readonly string[]) =>
  fc.array(
    fc.oneof(
      { weight: 15, arbitrary: fc.constantFrom(...good) },
      { weight: 1, arbitrary: fc.constantFrom(...odd) },
    ),
    { minLength: 1, maxLength: 3 },
  );
const addresses = list(
  [
    '10.0.0.0/8',
    '::1',
    '2001:db8::/32',
    'geoip:private',
    'geoip:!cn',
    '!192.0.2.1',
    '0.0.0.0/0',
    '::ffff:10.0.0.1/8',
  ],
  [
    'not-an-ip',
    '10.0.0.0/33',
    'geoip:',
    '10.0.0',
    '::1/129',
    'ext:',
    'fe80::1%eth0',
    '01.2.3.4',
    '::ffff:1.2.3.4/64',
    '!',
    '',
  ],
);
const domains = list(
  [
    'example.com',
    'domain:a.b',
    'full:a',
    'keyword:x',
    'dotless:',
    'dotless:a',
    'geosite:google',
    'geosite:cn@x',
    'regexp:^a+$',
    'regexp:\\pL{2,1000}',
    'regexp:(?i)a|b',
    'regexp:[[:alpha:]]',
  ],
  [
    'geosite:',
    'geosite:google@',
    'regexp:(',
    'regexp:(?=a)',
    'regexp:a{1001}',
    'regexp:\\1',
    'regexp:[z-a]',
    'regexp:(?<=a)b',
    'regexp:a**',
    'regexp:\\p{Foo}',
    'regexp:(a{100}){100}',
    'dotless:a.b',
    'dotless:(',
    'ext:x',
    '',
  ],
);
const value = (good: readonly unknown[], odd: readonly unknown[]) =>
  fc.oneof(
    { weight: 15, arbitrary: fc.constantFrom(...good) },
    { weight: 1, arbitrary: fc.constantFrom(...odd) },
  );
const ports = value([53, '53', '53,443', '1000-2000,1'], ['x', '9-8', 65_536, '', '1-', '1-65536']);

const rule = fc
  .record(
    {
      ip: addresses,
      domain: domains,
      source: addresses,
      localIP: addresses,
      port: ports,
      sourcePort: ports,
      vlessRoute: ports,
      network: value(['tcp', 'udp', 'tcp,udp', ['tcp']], [7, 'icmp']),
      protocol: value([['http'], ['bittorrent']], ['http', ['smtp']]),
      inboundTag: fc.constant(['api']),
      user: value(
        [['0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11'], ['regexp:^a']],
        [['regexp:('], ['alice']],
      ),
      attrs: value([{ ':method': 'GET' }, {}], [{ a: '(' }, { a: 1 }]),
      process: fc.constant(['curl']),
      webhook: value([{ url: 'http://127.0.0.1/x' }], [{ url: 7 }]),
      unknown: fc.constant(1),
    },
    { requiredKeys: [] },
  )
  .map((given): Json => {
    const { unknown, ...rest } = given;
    return {
      ...rest,
      outboundTag: 'direct',
      ...(Object.keys(rest).length % 5 === 4 ? { unknown } : {}),
    };
  });

const servers = fc.array(
  fc.oneof(
    value(
      [
        '1.1.1.1',
        'localhost',
        '::1',
        'https://1.1.1.1/dns-query',
        'tcp://8.8.8.8',
        'quic+local://a.b',
      ],
      ['ftp://x', 'x', 7],
    ),
    fc.record(
      {
        address: value(['8.8.8.8', 'https+local://a.b/dns-query'], [7]),
        port: value([53], [65_536, '53']),
        domains,
        expectedIPs: addresses,
        clientIp: value(['192.0.2.1'], ['x']),
        queryStrategy: value(['UseIPv4', 'useip'], ['x']),
        finalQuery: fc.boolean(),
      },
      { requiredKeys: ['address'] },
    ),
  ),
  { maxLength: 2 },
);
const xraySettings = fc.record(
  {
    domainStrategy: value(['AsIs', 'ipondemand'], ['x']),
    dns: fc.record(
      {
        servers,
        hosts: value(
          [{ 'domain:a.b': '127.0.0.1', c: ['::1', '10.0.0.1'] }, { 'a.b': 'c.d' }],
          [{ 'regexp:(': '127.0.0.1' }, { a: 7 }, { 'geosite:': '127.0.0.1' }],
        ),
        clientIp: value(['192.0.2.1'], ['x']),
        queryStrategy: value(['UseIP', 'UseSystem'], ['x']),
        disableCache: fc.boolean(),
      },
      { requiredKeys: [] },
    ),
    balancers: fc.array(
      fc.record(
        {
          tag: value(['ups'], ['']),
          selector: value([['direct']], [[], 7]),
          strategy: value(
            [
              { type: 'random' },
              { type: 'roundRobin' },
              {
                type: 'leastLoad',
                settings: { expected: 2, maxRTT: '1s', baselines: ['500ms'], tolerance: 0.5 },
              },
            ],
            [{ type: 'best' }, { type: 'leastLoad', settings: { maxRTT: 'x' } }],
          ),
          fallbackTag: fc.constant('direct'),
        },
        { requiredKeys: ['tag', 'selector'] },
      ),
      { maxLength: 1 },
    ),
    burstObservatory: value(
      [
        {
          subjectSelector: ['direct'],
          pingConfig: { interval: '1m', sampling: 3, destination: 'https://a.b/204' },
        },
      ],
      [
        { subjectSelector: ['direct'] },
        { subjectSelector: ['direct'], pingConfig: { interval: 'x' } },
      ],
    ),
  },
  { requiredKeys: ['burstObservatory'] },
);

/** Compares random rules, and random settings of DNS and balancers. */
export async function runRules(
  xrayPath: string,
  log: (line: string) => void,
  options: { samples?: number; seed?: number } = {},
): Promise<ComparisonResult> {
  const { samples = 1_000, seed = 28 } = options;
  const folder = mkdtempSync(path.join(tmpdir(), 'core-geo-'));
  try {
    writeGeoFiles(folder);
    const test = (config: object) => xrayRefusal(xrayPath, config, { XRAY_LOCATION_ASSET: folder });
    const outbounds = [{ tag: 'direct', protocol: 'freedom' }];
    const rules = await compare({
      samples: fc.sample(rule, { numRuns: samples, seed }),
      faultsOf: (given) => faultsOf(ruleSchema.safeParse(given)),
      test: (some) => test({ outbounds, routing: { rules: some } }),
    });
    const settings = await compare({
      samples: fc.sample(xraySettings, { numRuns: Math.ceil(samples / 4), seed }) as Json[],
      faultsOf: (given) => faultsOf(xraySettingsSchema.safeParse(given)),
      test: (some) =>
        eachAlone(some, ({ domainStrategy, balancers, ...rest }) =>
          test({ outbounds, routing: { domainStrategy, balancers }, ...rest }),
        ),
    });
    for (const [name, one] of [
      ['rules', rules],
      ['DNS and balancers', settings],
    ] as const) {
      log(
        `${name}: ${one.samples} samples, Core takes ${one.accepted}; of these Xray refuses ${one.wronglyAccepted.length}; Core alone refuses ${one.wronglyRefused.length}`,
      );
    }
    return {
      samples: rules.samples + settings.samples,
      accepted: rules.accepted + settings.accepted,
      wronglyAccepted: [...rules.wronglyAccepted, ...settings.wronglyAccepted],
      wronglyRefused: [...rules.wronglyRefused, ...settings.wronglyRefused],
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function eachAlone(
  some: readonly Json[],
  test: (one: Json) => Promise<string | undefined>,
): Promise<string | undefined> {
  for (const one of some) {
    const reason = await test(one);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

interface Fault {
  path: readonly PropertyKey[];
  message: string;
}

function faultsOf(parsed: { error?: { issues: Fault[] } | undefined }): Fault[] {
  return parsed.error?.issues ?? [];
}

async function compare(given: {
  samples: readonly Json[];
  faultsOf: (one: Json) => Fault[];
  test: (some: readonly Json[]) => Promise<string | undefined>;
}): Promise<ComparisonResult> {
  const verdicts = given.samples.map((part) => ({ part, faults: given.faultsOf(part) }));
  const accepted = verdicts.filter((one) => one.faults.length === 0).map((one) => one.part);
  const refused = await refusedParts(accepted, given.test);
  const wronglyRefused: ComparisonResult['wronglyRefused'] = [];
  for (const { part, faults } of verdicts) {
    const unexplained = faults.find(
      (fault) =>
        !ownReasons.some(
          ([reason]) => reason.test(fault.message) || reason.test(issuePath(fault.path)),
        ),
    );
    if (unexplained === undefined || (await given.test([part])) !== undefined) continue;
    wronglyRefused.push({ part, reason: `${issuePath(unexplained.path)}: ${unexplained.message}` });
  }
  return {
    samples: given.samples.length,
    accepted: accepted.length,
    wronglyAccepted: [...refused].map(([part, reason]) => ({ part, reason })),
    wronglyRefused,
  };
}
