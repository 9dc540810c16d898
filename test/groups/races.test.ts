import t from 'tap';
import { toCoreError } from '../../src/errors.ts';
import { applyFleet } from '../../src/fleet/apply.ts';
import { parseFleetFile } from '../../src/fleet/file.ts';
import { createGroup, removeGroup, renameGroup } from '../../src/groups/groups.ts';
import { changeMembers, type MembersChange } from '../../src/groups/members.ts';
import { createNode } from '../../src/nodes/change.ts';
import { addProtocol, removeProtocol, setProtocol } from '../../src/settings/protocols.ts';
import { changeSubscription } from '../../src/subscriptions/change.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { deleteSubscription, deleteUser } from '../../src/subscriptions/delete.ts';
import { importSubscriptions } from '../../src/subscriptions/import.ts';
import { listLinks } from '../../src/subscriptions/links.ts';
import { rotateLink, rotateLinks } from '../../src/subscriptions/rotate.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const sideBySide = 10;
const { pool, redis, prefix } = await openStores(t, { max: 16, connectTimeoutMs: 60_000 });
const roundsPerActor = 60;
const groups = ['default', 'a', 'b'];
const nodeIds: number[] = [];
let userId = 0;

/** Numbers that look random and are the same in each run. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 4_294_967_296) * below);
  };
}

async function idsOf(table: 'subscriptions' | 'node_protocols'): Promise<number[]> {
  const { rows } = await pool.query<{ id: number }>(`SELECT id FROM ${table} ORDER BY id`);
  return rows.map((row) => row.id);
}

async function fill(): Promise<void> {
  userId = await createUser(pool, { name: 'alice' });
  for (const name of ['n1', 'n2', 'n3', 'n4']) {
    const node = { name, region: '', host: 'h', ip: '' };
    const { nodeId } = await createNode(pool, node, { registrationSeconds: 60 });
    nodeIds.push(nodeId);
    for (const port of [443, 444]) {
      await addProtocol(pool, { nodeId, protocol: 'VLESS', port, settings: {} });
    }
  }
  for (const name of groups.slice(1)) await createGroup(pool, name);
  for (let made = 0; made < 30; made += 1) {
    await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null, groups });
  }
}

const fleet = (port: number) =>
  parseFleetFile(
    'fleet.yaml',
    `version: 1\ngroups: [default]\nnodes:\n  - name: n1\n    protocols:\n      - { name: vless-443, protocol: VLESS, port: ${port} }\n`,
  );

type Act = (pick: (below: number) => number) => Promise<unknown>;

const anyOf = async (
  table: 'subscriptions' | 'node_protocols',
  pick: (below: number) => number,
) => {
  const ids = await idsOf(table);
  return ids[pick(ids.length)] ?? 0;
};
const groupOf = (pick: (below: number) => number) => groups[pick(groups.length)] ?? '';

function members(pick: (below: number) => number): MembersChange {
  const from = 1 + pick(30);
  const ranges = [
    { from: from + 5, to: from + 12 },
    { from, to: from + 8 },
  ];
  return {
    group: groupOf(pick),
    action: pick(2) === 0 ? 'add' : 'remove',
    subscriptions: pick(3) === 0 ? 'all' : ranges,
    protocols: pick(3) === 0 ? 'all' : undefined,
  };
}

const acts: Record<string, Act> = {
  create: (pick) =>
    createSubscription(pool, {
      userId,
      trafficLimitBytes: null,
      expiresAt: null,
      disabled: pick(2) === 0,
      groups: [groupOf(pick)],
    }),
  import: (pick) =>
    importSubscriptions(
      pool,
      async function* () {
        for (let line = 1; line <= 3; line += 1) {
          yield {
            line,
            subscription: {
              user: { id: userId },
              trafficLimitBytes: null,
              expiresAt: null,
              groups: [groupOf(pick)],
            },
          };
        }
      },
      { keepGoing: false },
    ),
  'remove a group': async (pick) => {
    const name = groups[1 + pick(2)] ?? '';
    await removeGroup(pool, name, { dryRun: false });
    await createGroup(pool, name);
  },
  'rename a group': async (pick) => {
    const name = groups[1 + pick(2)] ?? '';
    await renameGroup(pool, name, 'c');
    await renameGroup(pool, 'c', name);
  },
  members: (pick) => changeMembers(pool, members(pick), { dryRun: false }),
  groups: async (pick) =>
    changeSubscription(pool, await anyOf('subscriptions', pick), { groups: [groupOf(pick)] }),
  disable: async (pick) =>
    changeSubscription(pool, await anyOf('subscriptions', pick), { disabled: pick(2) === 0 }),
  rotate: async (pick) => rotateLinks(pool, await anyOf('subscriptions', pick)),
  'rotate one': async (pick) => {
    const [link] = await listLinks(pool, await anyOf('subscriptions', pick));
    if (link !== undefined) await rotateLink(pool, { uuid: link.uuid });
  },
  delete: async (pick) => deleteSubscription(pool, await anyOf('subscriptions', pick)),
  'delete a user': async () => {
    const other = await createUser(pool, { name: 'bob' });
    const given = { userId: other, trafficLimitBytes: null, expiresAt: null, groups: ['default'] };
    await createSubscription(pool, given);
    await createSubscription(pool, { ...given, disabled: true });
    await deleteUser(pool, other, { force: true });
  },
  'set a protocol': async (pick) =>
    setProtocol(pool, await anyOf('node_protocols', pick), {
      name: `p-${pick(9)}`,
      groups: pick(2) === 0 ? undefined : [groupOf(pick)],
    }),
  'replace a protocol': async (pick) => {
    await removeProtocol(pool, await anyOf('node_protocols', pick));
    const nodeId = nodeIds[pick(4)] ?? 0;
    const port = 1_000 + pick(5_000);
    await addProtocol(pool, {
      ...{ nodeId, protocol: 'VLESS', port, settings: {}, groups: [groupOf(pick)] },
    });
  },
  apply: (pick) =>
    applyFleet(pool, fleet(443 + pick(2) * 8_000), {
      prune: false,
      dryRun: false,
      registrationSeconds: 60,
    }),
  publish: () => publishNow({ pool, redis, prefix }),
};

/** What an operator may be told if somebody else was faster. */
const expectedCodes = new Set(['NOT_FOUND', 'INVALID_ARGUMENT']);

t.test(
  'changes side by side never wait in a circle, and no node keeps an old revision',
  async (t) => {
    await fill();
    const faults: string[] = [];
    const done = new Map<string, number>();
    const actor = async (seed: number): Promise<void> => {
      const pick = createRandom(seed);
      const names = Object.keys(acts);
      for (let round = 0; round < roundsPerActor; round += 1) {
        const name = names[pick(names.length)] ?? '';
        try {
          await acts[name]?.(pick);
          done.set(name, (done.get(name) ?? 0) + 1);
        } catch (thrown) {
          const { code, message } = toCoreError(thrown);
          const cause = thrown instanceof Error ? thrown.message : String(thrown);
          if (!expectedCodes.has(code)) faults.push(`${name}: ${code} ${message}: ${cause}`);
        }
      }
    };
    await Promise.all(Array.from({ length: sideBySide }, (_, at) => actor(at + 1)));
    t.same(faults, []);
    for (const name of Object.keys(acts)) t.ok((done.get(name) ?? 0) > 0, `${name} was done`);

    await publishNow({ pool, redis, prefix });
    // If a mark had been lost, this would find other bytes than those of the last revision.
    await pool.query('UPDATE nodes SET change_seq = change_seq + 1');
    const again = await publishNow({ pool, redis, prefix });
    t.same([again.published, again.failed], [[], []]);
    t.same([...again.unchanged].sort(), nodeIds);
  },
);
