import t from 'tap';
import { applyFleet } from '../../src/fleet/apply.ts';
import { exportFleet } from '../../src/fleet/export.ts';
import { parseFleetFile } from '../../src/fleet/file.ts';
import { createLogger } from '../../src/log.ts';
import { listProtocols } from '../../src/settings/protocols.ts';
import { listRules } from '../../src/settings/rules.ts';
import { migratePostgres } from '../../src/stores/migrate.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { freshStores } from '../support/stores.ts';

const { databaseUrl } = await freshStores(t);
const pool = createPool(databaseUrl, { max: 4 });
t.teardown(() => pool.end());
await migratePostgres(pool, createLogger('silent'));

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
});

const apply = (text: string) =>
  applyFleet(pool, parseFleetFile('fleet.yaml', text), {
    prune: false,
    dryRun: false,
    registrationSeconds: 60,
  });

const fleet = (protocols: string, rules = '') =>
  `version: 1
nodes:
  - name: fra-1
    protocols:
${protocols
  .trim()
  .split('\n')
  .map((line) => `      - ${line.trim()}`)
  .join('\n')}
${rules === '' ? '' : `    rules:\n      - ${rules}`}
`;

/** The protocols by name, each with its id and port. */
const stored = async () =>
  Object.fromEntries(
    (await listProtocols(pool, {})).map(({ name, nodeProtocolId, protocol, port }) => [
      name,
      `${nodeProtocolId} ${protocol} ${port}`,
    ]),
  );
const inboundTags = async () =>
  (await listRules(pool, 1)).flatMap(({ rule }) => rule['inboundTag']);

async function addLinks(): Promise<void> {
  const userId = await createUser(pool, { name: 'u' });
  await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null });
}

t.test('a protocol with a name keeps its id when everything else of it changes', async (t) => {
  const rule = '{ inboundTag: [edge], outboundTag: direct }';
  await apply(fleet('{ name: edge, protocol: VLESS, port: 443 }', rule));
  t.same(await stored(), { edge: '1 VLESS 443' });
  t.same(await inboundTags(), ['in-1'], 'Core stores the tag');
  await addLinks();
  const moved = fleet(
    '{ name: edge, protocol: VLESS, port: 8443, settings: { listen: 198.51.100.7, sniffing: false } }',
    rule,
  );
  const { lines, removed } = await apply(moved);
  t.match(lines, [
    {
      action: 'change',
      object: 'protocol VLESS on port 443 of node fra-1',
      changes: [
        { field: 'port', from: 443, to: 8443 },
        { field: 'sniffing', from: true, to: false },
        { field: 'listen', to: '198.51.100.7' },
      ],
    },
  ]);
  t.match(removed, { protocols: 0, links: 0 });
  t.same(await stored(), { edge: '1 VLESS 8443' });
  t.same(await inboundTags(), ['in-1']);
  t.same((await apply(moved)).lines, []);
});

t.test('protocols with names can swap ports and addresses', async (t) => {
  const two = (a: number, b: number) =>
    fleet(`{ name: a, protocol: VLESS, port: ${a} }\n{ name: b, protocol: VLESS, port: ${b} }`);
  await apply(two(443, 8443));
  t.same((await apply(two(8443, 443))).lines.length, 2);
  t.same(await stored(), { a: '1 VLESS 8443', b: '2 VLESS 443' });
});

t.test(
  'another kind under the same name is a new protocol, and rules follow the name',
  async (t) => {
    const rule = '{ inboundTag: [edge], outboundTag: direct }';
    await apply(fleet('{ name: edge, protocol: VLESS, port: 443 }', rule));
    await addLinks();
    const { lines, removed } = await apply(fleet('{ name: edge, protocol: TROJAN, port: 443 }'));
    t.match(lines, [
      { action: 'remove', links: { links: 1, linksInUse: 1 } },
      { action: 'create', object: 'protocol TROJAN on port 443 of node fra-1' },
    ]);
    t.match(removed, { protocols: 1, links: 1, linksInUse: 1 });
    t.same(await stored(), { edge: '2 TROJAN 443' });
    t.same(await inboundTags(), ['in-2']);
  },
);

t.test(
  'a file without names finds each protocol by its port, or as the only one of its kind',
  async (t) => {
    await apply(fleet('{ protocol: VLESS, port: 443 }\n{ protocol: TROJAN, port: 444 }'));
    t.same(await stored(), { 'vless-443': '1 VLESS 443', 'trojan-444': '2 TROJAN 444' });
    const { lines } = await apply(
      fleet('{ protocol: VLESS, port: 8443 }\n{ protocol: TROJAN, port: 444 }'),
    );
    t.match(lines, [
      {
        changes: [{ field: 'port', from: 443, to: 8443 }],
        note: /has one VLESS before and after; its links stay/,
      },
    ]);
    t.equal(lines.length, 1);
    t.same(await stored(), { 'vless-443': '1 VLESS 8443', 'trojan-444': '2 TROJAN 444' });

    await apply(
      fleet(
        '{ protocol: VLESS, port: 1 }\n{ protocol: VLESS, port: 2 }\n{ protocol: TROJAN, port: 444 }',
      ),
    );
    t.match(
      await stored(),
      { 'vless-1': '3 VLESS 1', 'vless-2': '4 VLESS 2', 'trojan-444': '2 TROJAN 444' },
      'nobody can tell which of the two it was',
    );
  },
);

t.test('a file can give names to protocols that Core named', async (t) => {
  const rule = '{ inboundTag: [in-1], outboundTag: direct }';
  await apply(fleet('{ protocol: VLESS, port: 443 }'));
  await apply(fleet('{ protocol: VLESS, port: 443 }', rule));
  const { lines } = await apply(fleet('{ name: edge, protocol: VLESS, port: 443 }'));
  t.match(lines, [{ changes: [{ field: 'name', from: 'vless-443', to: 'edge' }] }]);
  t.same(await stored(), { edge: '1 VLESS 443' });
  t.same(await inboundTags(), ['in-1'], 'the rule stays on the protocol');
});

t.test('an export gives an empty Core the same rules, whatever its ids are', async (t) => {
  const protocols =
    '{ name: one, protocol: VLESS, port: 443 }\n{ name: two, protocol: VMESS, port: 444 }';
  await apply(fleet(protocols, '{ inboundTag: [two], outboundTag: direct }'));
  const { text } = await exportFleet(pool, { secrets: true });
  t.match(text, /name: two/);
  t.match(text, /inboundTag:\n\s+- two/);
  await pool.query('TRUNCATE nodes CASCADE');
  await apply(text);
  const two = (await listProtocols(pool, {})).find(({ name }) => name === 'two');
  const [node] = (await pool.query<{ id: number }>('SELECT id FROM nodes')).rows;
  t.ok((two?.nodeProtocolId ?? 0) > 2, 'the ids are others');
  const rules = await listRules(pool, node?.id ?? 0);
  t.same(rules[0]?.rule['inboundTag'], [`in-${two?.nodeProtocolId}`]);
  t.same((await apply(text)).lines, []);
});

t.test('a rule on an inbound that is removed is refused, with its line', async (t) => {
  const two = '{ name: a, protocol: VLESS, port: 443 }\n{ name: b, protocol: VMESS, port: 444 }';
  await apply(fleet(two, '{ inboundTag: [b], outboundTag: direct }'));
  const message = /Rule 1 names the inbound b, which the node would not have; it would have a/;
  await t.rejects(apply(fleet('{ name: a, protocol: VLESS, port: 443 }')), { message });
  await t.rejects(
    apply(
      fleet('{ name: a, protocol: VLESS, port: 443 }', '{ inboundTag: [b], outboundTag: direct }'),
    ),
    { message: /line 7: nodes\[0\]\.rules\[0\]: Rule 1 names the inbound b/ },
  );
  await t.rejects(apply(fleet(two, '{ inboundTag: [in-99], outboundTag: direct }')), {
    message: /names the inbound in-99/,
  });
  t.same(Object.keys(await stored()), ['a', 'b'], 'nothing was changed');
  const loop = fleet(two, '{ inboundTag: [again], outboundTag: direct }').replace(
    '    rules:',
    '    outbounds:\n      - { tag: direct, protocol: freedom }\n      - { tag: l, protocol: loopback, settings: { inboundTag: again } }\n    rules:',
  );
  await apply(loop);
  t.same(await inboundTags(), ['again'], 'the inbound of a loopback outbound');
});

t.test('a dead rule of an earlier Core is refused in the plan of a change', async (t) => {
  const one = '{ name: a, protocol: VLESS, port: 443 }';
  await apply(fleet(one, '{ inboundTag: [a], outboundTag: direct }'));
  await pool.query(`UPDATE routing_rules SET rule = jsonb_set(rule, '{inboundTag}', '["in-99"]')`);
  t.same((await apply(fleet(one))).lines, [], 'a plan that leaves the node alone is carried out');
  await t.rejects(apply(fleet('{ name: a, protocol: VLESS, port: 444 }')), {
    code: 'INVALID_ARGUMENT',
    message: /protocols: Rule 1 names the inbound in-99, which the node would not have; .* have a/,
  });
});

t.test('the plan refuses a protocol on the port of an inbound of raw', async (t) => {
  const raw = '\n    xray: { raw: { inbounds: [{ tag: s, port: 443, protocol: socks }] } }\n';
  await t.rejects(apply(`${fleet('{ name: a, protocol: VLESS, port: 443 }').trimEnd()}${raw}`), {
    code: 'INVALID_ARGUMENT',
    message: /xray: inbound s of raw takes TCP port 443, which protocol a \(VLESS\) has/,
  });
});

t.test('the groups of a protocol are part of the file', async (t) => {
  await pool.query("INSERT INTO groups (name) VALUES ('paid'), ('trial') ON CONFLICT DO NOTHING");
  const groups = async () =>
    (
      await pool.query<{ names: string[] }>(
        `SELECT array_agg(g.name ORDER BY g.name) AS names FROM protocol_groups
         JOIN groups g ON g.id = group_id`,
      )
    ).rows[0]?.names;
  await apply(fleet('{ name: a, protocol: VLESS, port: 443, groups: [paid, trial] }'));
  t.same(await groups(), ['paid', 'trial']);
  t.same((await apply(fleet('{ name: a, protocol: VLESS, port: 443 }'))).lines, [], 'they stay');
  const { lines } = await apply(fleet('{ name: a, protocol: VLESS, port: 443, groups: [paid] }'));
  t.match(lines, [{ changes: [{ field: 'groups', from: ['paid', 'trial'], to: ['paid'] }] }]);
  t.same(await groups(), ['paid']);
  t.match((await exportFleet(pool, { secrets: true })).text, /groups:\n\s+- paid/);
});

t.test('a name that comes twice, or that looks like a tag, is a fault with its line', async (t) => {
  const twice = '{ name: a, protocol: VLESS, port: 443 }\n{ name: a, protocol: VMESS, port: 444 }';
  t.throws(() => parseFleetFile('f', fleet(twice)), {
    message: /line 6: nodes\[0\]\.protocols\[1\]\.name: The protocol a comes twice/,
  });
  for (const name of ['in-7', 'api', '-a', 'a b', '""', 'a'.repeat(65)]) {
    t.throws(() => parseFleetFile('f', fleet(`{ name: ${name}, protocol: VLESS, port: 443 }`)), {
      message: /line 5: nodes\[0\]\.protocols\[0\]\.name: Must/,
    });
  }
});
