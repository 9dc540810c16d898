import t from 'tap';
import { faultyPart } from '../../../examples/agent/faulty-part.ts';
import { linksToEnd, planChange } from '../../../examples/agent/plan.ts';
import { readSettings } from '../../../examples/agent/settings.ts';
import {
  clientsOf,
  environmentOf,
  renderForXray,
  routingWithout,
  type Tagged,
  type XrayConfig,
} from '../../../examples/agent/xray-config.ts';
import { renderNodeConfig } from '../../../src/render/render.ts';
import { goldenCases, goldenRows } from '../../support/golden-cases.ts';

const inbound = (tag: string, emails: string[], more: Record<string, unknown> = {}): Tagged => ({
  tag,
  protocol: 'vless',
  listen: '0.0.0.0',
  port: 443,
  settings: { clients: emails.map((email) => ({ id: email, email })), decryption: 'none' },
  ...more,
});

const configOf = (more: Partial<XrayConfig> = {}): XrayConfig => ({
  inbounds: [inbound('in-1', ['a', 'b'])],
  outbounds: [
    { tag: 'direct', protocol: 'freedom', settings: {} },
    { tag: 'second', protocol: 'blackhole', settings: {} },
  ],
  routing: { domainStrategy: 'AsIs', rules: [{ domain: ['x.example'], outboundTag: 'second' }] },
  api: { tag: 'api', listen: '127.0.0.1:10085', services: [] },
  policy: { levels: {} },
  ...more,
});

t.test('nothing changes', async (t) => {
  t.same(planChange(configOf(), configOf()), { kind: 'same' });
});

t.test('users come, go, and get another credential, without a restart', async (t) => {
  const clients = [
    { id: 'other', email: 'b' },
    { id: 'c', email: 'c' },
  ];
  const to = configOf({
    inbounds: [inbound('in-1', [], { settings: { clients, decryption: 'none' } })],
  });
  t.same(planChange(configOf(), to), {
    kind: 'changes',
    outbounds: [],
    inbounds: [],
    usersAdded: [
      { tag: 'in-1', protocol: 'vless', client: clients[0] },
      { tag: 'in-1', protocol: 'vless', client: clients[1] },
    ],
    usersRemoved: [
      { tag: 'in-1', email: 'b' },
      { tag: 'in-1', email: 'a' },
    ],
    hasOtherRules: false,
  });
  t.same([...linksToEnd(configOf(), to).keys()], ['a', 'b'], 'gone, and with another credential');
});

t.test('inbounds come, go and change: what goes, goes first', async (t) => {
  const from = configOf({ inbounds: [inbound('in-1', ['a']), inbound('in-2', ['b'])] });
  const changed = inbound('in-1', ['a'], { port: 8_443 });
  const to = configOf({ inbounds: [changed, inbound('in-3', ['b'])] });
  t.match(planChange(from, to), {
    kind: 'changes',
    inbounds: [
      { from: { tag: 'in-2' } },
      { from: { tag: 'in-1', port: 443 }, to: { tag: 'in-1', port: 8_443 } },
      { to: { tag: 'in-3' } },
    ],
    usersAdded: [],
    usersRemoved: [],
  });
  t.same(
    [...linksToEnd(from, to).keys()],
    ['b'],
    'a link that keeps its inbound keeps its session',
  );
});

t.test('outbounds and rules; a restart for the first outbound and for the rest', async (t) => {
  const [direct, second] = configOf().outbounds as [Tagged, Tagged];
  const third = { ...second, tag: 'third' };
  t.match(planChange(configOf(), configOf({ outbounds: [direct, third] })), {
    kind: 'changes',
    outbounds: [{ from: second }, { to: third }],
  });
  const rules = configOf({ routing: { domainStrategy: 'AsIs', rules: [] } });
  t.match(planChange(configOf(), rules), { kind: 'changes', hasOtherRules: true });
  const restarts: [Partial<XrayConfig>, RegExp][] = [
    [{ outbounds: [second, direct] }, /first outbound/],
    [{ policy: { levels: { 0: {} } } }, /policy/],
    [{ routing: { domainStrategy: 'IPIfNonMatch', rules: [] } }, /routing/],
    [{ dns: { servers: ['1.1.1.1'] } }, /dns/],
  ];
  for (const [change, why] of restarts) {
    t.match(planChange(configOf(), configOf(change)), { kind: 'restart', why });
  }
});

t.test('every protocol of Core becomes a file for Xray', async (t) => {
  for (const { name, protocol, settings } of goldenCases) {
    const config = renderNodeConfig(goldenRows({ name, protocol, settings }));
    const xray = renderForXray(config, { apiPort: 23_456 });
    if (protocol === 'MTPROTO') {
      t.equal(xray, undefined, `${name}: nothing to run`);
      continue;
    }
    t.equal(xray?.api.listen, '127.0.0.1:23456', name);
    t.same(xray?.routing.rules[0], {
      type: 'field',
      port: '23456',
      outboundTag: 'core-agent-blocked',
    });
    t.same(xray?.outbounds[0], config.services.xray?.outbounds[0], 'the first outbound stays');
    t.ok(clientsOf(xray?.inbounds[0] as Tagged).size > 0, `${name}: clients by their UUID`);
    const again = renderForXray({ ...config, revision: 99 }, { apiPort: 23_456 });
    t.same(JSON.stringify(again), JSON.stringify(xray), 'the same content is the same text');
  }
});

t.test('a rule blocks removed links, in front of all others', async (t) => {
  const config = configOf();
  t.equal(routingWithout(config, []), config.routing);
  t.same(routingWithout(config, ['a', 'b'])['rules'], [
    { type: 'field', user: ['a', 'b'], outboundTag: 'core-agent-blocked' },
    ...config.routing.rules,
  ]);
});

t.test('splicing is off unless Core says otherwise', async (t) => {
  t.same(environmentOf(configOf()), { XRAY_BUF_SPLICE: 'disable' });
  const env = { 'xray.buf.splice': 'enable', 'xray.location.asset': '/geo' };
  t.same(environmentOf(configOf({ env })), {
    XRAY_BUF_SPLICE: 'enable',
    XRAY_LOCATION_ASSET: '/geo',
  });
});

t.test('the part that Xray complains about', async (t) => {
  const config = configOf({
    inbounds: [inbound('in-1', []), inbound('in-12', [], { port: 8_443 })],
  });
  const cases: [string, unknown][] = [
    ['failed to build inbound config with tag in-12 > no certificate', { inbound: 'in-12' }],
    ['failed to listen TCP on 8443 > address already in use', { inbound: 'in-12' }],
    ['failed to build outbound config with tag second > x', { outbound: 'second' }],
    ['infra/conf: invalid field rule > no geo file', { rules: true }],
    ['something else', {}],
  ];
  for (const [message, part] of cases) t.same(faultyPart(message, config), part, message);
});

t.test('settings come from the command line, or from the environment', async (t) => {
  t.teardown(() => {
    delete process.env['CORE_AGENT_USAGE_SECONDS'];
    delete process.env['CORE_AGENT_XRAY'];
  });
  process.env['CORE_AGENT_USAGE_SECONDS'] = '3';
  process.env['CORE_AGENT_XRAY'] = '/opt/xray';
  const settings = readSettings(['--xray', '/usr/bin/xray', '--data-dir', '/d']);
  t.match(settings, { usageSeconds: 3, xray: '/usr/bin/xray', dataDir: '/d', check: false });
});
