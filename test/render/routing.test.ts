import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { type Outbound, validateOutbound } from '../../src/protocols/outbound/outbound.ts';
import { validateXraySettings } from '../../src/protocols/routing/xray-settings.ts';
import { renderNodeConfig } from '../../src/render/render.ts';
import { projectRoot } from '../../src/root.ts';
import { optionsOf } from '../../src/settings/outbounds.ts';
import { referenceFaults } from '../../src/settings/references.ts';
import { validateRule } from '../../src/settings/rule-schema.ts';
import { encodeLinkRecords } from '../support/link-records.ts';

const page = readFileSync(path.join(projectRoot, 'docs', 'routing.md'), 'utf8');
const examples = (kind: string): Record<string, unknown>[] =>
  [...page.matchAll(new RegExp(`<!-- ${kind} -->\n\n\`\`\`json\n(.*?)\`\`\``, 'gs'))].map(
    ([, json = '']) => JSON.parse(json) as Record<string, unknown>,
  );
const outbounds = examples('outbound') as unknown as Outbound[];
const rules = examples('rule');
const [xray = {}] = examples('xray');

t.test('Core takes the examples of docs/routing.md', async (t) => {
  t.equal(outbounds.length, 5);
  t.equal(rules.length, 2);
  for (const outbound of outbounds) t.doesNotThrow(() => validateOutbound(outbound), outbound.tag);
  for (const rule of rules) t.doesNotThrow(() => validateRule(rule));
  t.doesNotThrow(() => validateXraySettings(xray));
  t.same(referenceFaults({ inboundTags: new Set(), listeners: [], outbounds, rules, xray }), []);
});

const base = {
  node: { id: 7, host: 'node.example.com', ip: '192.0.2.7', revision: 3 },
  protocols: [{ id: 12, protocol: 'VLESS' as const, port: 8_443, settings: {} }],
  links: encodeLinkRecords([]),
};
const rowsOf = (given: readonly Outbound[]) =>
  given.map(({ tag, protocol, settings, ...rest }, index) => ({
    tag,
    protocol,
    settings,
    options: optionsOf(rest),
    position: index + 1,
  }));

t.test('a node with the examples renders to the reviewed file', async (t) => {
  const rendered = renderNodeConfig({
    ...base,
    outbounds: rowsOf(outbounds),
    rules: rules.map((rule, index) => ({ position: index + 1, rule })),
    xray,
  });
  const file = path.join(projectRoot, 'test', 'golden', 'routing', 'routing.json');
  const pretty = `${JSON.stringify(rendered, null, 2)}\n`;
  if (process.env['CORE_WRITE_GOLDEN'] === '1') writeFileSync(file, pretty);
  t.equal(pretty, readFileSync(file, 'utf8'));
});

t.test('raw takes the place of no users, whatever its keys', async (t) => {
  const raw = {
    Sniffing: { enabled: false },
    // Keys that are numbers come before all others.
    '0': { clients: [] },
    settings: { '1': { clients: [] }, Decryption: 'other' },
  };
  const rendered = (settings: object) =>
    renderNodeConfig({
      ...base,
      protocols: base.protocols.map((row) => ({
        ...row,
        settings: { ...row.settings, ...settings },
      })),
      links: encodeLinkRecords([
        { nodeProtocolId: 12, userId: 1, subscriptionId: 1, credential: 'somebody' },
      ]),
      outbounds: [],
      rules: [],
    }).services.xray?.inbounds[0];
  const plain = rendered({});
  const merged = rendered({ raw });
  t.equal(plain?.settings.clients.length, 1);
  t.same(merged?.settings, { ...plain?.settings, '1': { clients: [] }, decryption: 'other' });
  t.match(merged, { '0': { clients: [] }, sniffing: { enabled: false } });
  t.notOk(Object.hasOwn(merged ?? {}, 'Sniffing'), 'Xray would read it instead of sniffing');
});

t.test('raw is merged into an outbound and into the root', async (t) => {
  const direct = { tag: 'direct', protocol: 'freedom', settings: {} } as const;
  const rendered = renderNodeConfig({
    ...base,
    outbounds: rowsOf([
      {
        ...direct,
        streamSettings: { sockopt: { mark: 1 }, network: 'raw' },
        raw: {
          streamSettings: { sockopt: { mark: 2, tcpNoDelay: true } },
          settings: { fresh: [1] },
        },
      },
    ]),
    rules: [{ position: 1, rule: { port: 1, outboundTag: 'direct' } }],
    xray: {
      raw: {
        log: { loglevel: 'none' },
        inbounds: [{ tag: 'local', protocol: 'socks', port: 1_080 }],
        outbounds: [{ tag: 'more', protocol: 'freedom' }],
        routing: { domainStrategy: 'IPOnDemand', rules: [{ port: 2, outboundTag: 'more' }] },
      },
    },
  });
  const { xray: service } = rendered.services;
  t.same(service?.outbounds, [
    {
      tag: 'direct',
      protocol: 'freedom',
      settings: { fresh: [1] },
      streamSettings: { network: 'raw', sockopt: { mark: 2, tcpNoDelay: true } },
    },
    { tag: 'more', protocol: 'freedom' },
  ]);
  t.same(
    service?.inbounds.map((inbound) => inbound.tag),
    ['in-12', 'local'],
  );
  t.same(service?.routing, {
    domainStrategy: 'IPOnDemand',
    rules: [
      { port: 1, outboundTag: 'direct' },
      { port: 2, outboundTag: 'more' },
    ],
  });
  t.same(service?.['log'], { loglevel: 'none' });
  t.match(service?.stats, {});
});
