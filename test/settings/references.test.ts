import t from 'tap';
import { createNode } from '../../src/nodes/change.ts';
import { addOutbound, removeOutbound, setOutbound } from '../../src/settings/outbounds.ts';
import { addProtocol, removeProtocol } from '../../src/settings/protocols.ts';
import { addRule, removeRule } from '../../src/settings/rules.ts';
import { readXraySettings, setXraySettings } from '../../src/settings/xray-settings.ts';
import { openStores } from '../support/stores.ts';

const { pool } = await openStores(t, { max: 4 });

let nodeId = 0;
t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
  const node = { name: 'n', region: '', host: 'h', ip: '' };
  nodeId = (await createNode(pool, node, { registrationSeconds: 60 })).nodeId;
});

type Added = Parameters<typeof addOutbound>[1];
const freedom = (tag: string, more: Partial<Added> = {}): Added => ({
  nodeId,
  tag,
  protocol: 'freedom',
  settings: {},
  ...more,
});
const through = (tag: string, other: string) => freedom(tag, { proxySettings: { tag: other } });
const rule = (more: Record<string, unknown>) =>
  addRule(pool, { nodeId, rule: { port: 1, ...more } });
const refused = (work: () => Promise<unknown>, message: RegExp) => ({ work, message });

t.test('an inbound that a rule names is not removed', async (t) => {
  const { nodeProtocolId } = await addProtocol(pool, {
    nodeId,
    protocol: 'VLESS',
    port: 443,
    settings: {},
  });
  const inbound = `in-${nodeProtocolId}`;
  await t.rejects(rule({ inboundTag: ['in-99'], outboundTag: 'direct' }), {
    code: 'INVALID_ARGUMENT',
    message: `Node 1: rule 1 names the inbound in-99, which the node does not have; it has api, ${inbound}`,
  });
  const { ruleId } = await rule({ inboundTag: [inbound, 'api'], outboundTag: 'direct' });
  await t.rejects(removeProtocol(pool, nodeProtocolId), {
    code: 'INVALID_ARGUMENT',
    message: `Node 1: rule 1 names the inbound ${inbound}, which the node does not have; it has api`,
  });
  await removeRule(pool, ruleId);
  await removeProtocol(pool, nodeProtocolId);
});

t.test('an outbound that anything names is not removed', async (t) => {
  await addOutbound(pool, freedom('direct'));
  await addOutbound(pool, freedom('hop'));
  await addOutbound(pool, through('a', 'hop'));
  await addOutbound(pool, freedom('b', { streamSettings: { sockopt: { dialerProxy: 'a' } } }));
  const cases = [
    refused(
      () => removeOutbound(pool, { nodeId, tag: 'hop' }),
      /outbound a names the outbound hop/,
    ),
    refused(
      () => removeOutbound(pool, { nodeId, tag: 'a' }),
      /outbound b names the outbound a \(streamSettings\.sockopt\.dialerProxy\)/,
    ),
    refused(() => setOutbound(pool, through('hop', 'b')), /outbound hop connects through itself/),
    refused(() => setOutbound(pool, through('hop', 'hop')), /outbound hop connects through itself/),
    refused(() => addOutbound(pool, through('c', 'nope')), /outbound c names the outbound nope/),
    refused(
      () => rule({ outboundTag: 'nope' }),
      /names the outbound nope, .*it has a, b, direct, hop$/,
    ),
    refused(() => rule({ balancerTag: 'nope' }), /names the balancer nope, .*it has none$/),
  ];
  for (const { work, message } of cases) {
    await t.rejects(work(), { code: 'INVALID_ARGUMENT', message });
  }
});

t.test('balancers and observatories select outbounds that the node has', async (t) => {
  for (const tag of ['direct', 'up-1', 'up-2']) await addOutbound(pool, freedom(tag));
  const set = (settings: Record<string, unknown>) => setXraySettings(pool, nodeId, settings);
  const balancer = { tag: 'ups', selector: ['up-'], fallbackTag: 'direct' };
  const settings = { balancers: [balancer], dns: { servers: ['1.1.1.1'], tag: 'dns-in' } };
  await set(settings);
  t.same(await readXraySettings(pool, nodeId), settings);
  await rule({ balancerTag: 'ups' });
  await rule({ inboundTag: ['dns-in'], outboundTag: 'direct' });
  const least = { ...balancer, strategy: { type: 'leastPing' } };
  const cases = [
    refused(() => set({ dns: settings.dns }), /rule 1 names the balancer ups/),
    refused(() => set({ balancers: [balancer] }), /rule 2 names the inbound dns-in/),
    refused(
      () => set({ ...settings, balancers: [{ ...balancer, selector: ['no'] }] }),
      /selects no/,
    ),
    refused(
      () => set({ ...settings, balancers: [{ ...balancer, fallbackTag: 'no' }] }),
      /falls back/,
    ),
    refused(() => set({ ...settings, balancers: [least] }), /leastPing, which needs observatory/),
    refused(
      () => set({ ...settings, balancers: [balancer, balancer] }),
      /balancer ups comes twice/,
    ),
    refused(
      () => set({ ...settings, observatory: { subjectSelector: ['no'] } }),
      /observatory selects no/,
    ),
    refused(
      () => set({ ...settings, raw: { outbounds: [{ tag: 'direct' }] } }),
      /direct comes twice/,
    ),
    refused(() => removeOutbound(pool, { nodeId, tag: 'direct' }), /falls back to direct/),
  ];
  for (const { work, message } of cases) {
    await t.rejects(work(), { code: 'INVALID_ARGUMENT', message });
  }
  t.same(await readXraySettings(pool, nodeId), settings, 'nothing was changed');
  await removeOutbound(pool, { nodeId, tag: 'up-1' });
  await t.rejects(removeOutbound(pool, { nodeId, tag: 'up-2' }), /selects up-, with which no/);
  await set({ ...settings, raw: { outbounds: [{ tag: 'up-3', protocol: 'freedom' }] } });
  await removeOutbound(pool, { nodeId, tag: 'up-2' });
});
