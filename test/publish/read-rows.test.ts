import { randomUUID } from 'node:crypto';
import t from 'tap';
import { createGroup } from '../../src/groups/groups.ts';
import { createNode } from '../../src/nodes/change.ts';
import { credentialUuid } from '../../src/protocols/credential.ts';
import { readNodeRows } from '../../src/publish/read-rows.ts';
import { renderNodeConfig } from '../../src/render/render.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { readLinks } from '../../src/subscriptions/links.ts';
import { rotateLink } from '../../src/subscriptions/rotate.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { openStores } from '../support/stores.ts';

const { pool } = await openStores(t, { max: 4, connectTimeoutMs: 60_000 });

t.test('a configuration holds the UUID and the credential of every link, once', async (t) => {
  const userId = await createUser(pool, { name: 'alice' });
  const node = { name: 'n', region: '', host: 'h', ip: '' };
  const { nodeId } = await createNode(pool, node, { registrationSeconds: 60 });
  await createGroup(pool, 'premium');
  const add = (protocol: 'VLESS' | 'TROJAN', port: number, groups: string[]) =>
    addProtocol(pool, { nodeId, protocol, port, settings: {}, groups });
  await add('VLESS', 443, ['default', 'premium']);
  await add('TROJAN', 444, ['premium']);
  await add('TROJAN', 445, ['default', 'premium']);
  const both = ['default', 'premium'];
  const kinds: [groups: string[], credential?: string][] = [
    [['default']],
    [['premium']],
    [both],
    [both, 'pass,"word" é'],
    [['default'], randomUUID()],
    [['premium'], randomUUID().toUpperCase()],
    ...Array.from({ length: 70 }, (): [string[]] => [both]),
  ];
  for (const [groups, credential] of kinds) {
    const rest = { trafficLimitBytes: null, expiresAt: null };
    await createSubscription(pool, { userId, groups, credential, ...rest });
  }
  const old = randomUUID();
  await pool.query(
    'INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id) VALUES ($1, 4, 3)',
    [old],
  );
  await rotateLink(pool, { subscriptionId: 3, nodeProtocolId: 2 });

  const links = (
    await Promise.all(kinds.map((_, at) => readLinks(pool, { subscriptionId: at + 1 })))
  ).flat();
  t.equal(links.find((link) => link.uuid === old)?.credential, old);
  const client = await pool.connect();
  const rows = await readNodeRows(client, nodeId);
  client.release();
  if (rows === undefined) throw new Error('there is no node');
  t.equal(rows.credentialTexts?.length, 2 + 1, 'only passwords that are no UUID in lower case');
  const { clientMap, services } = renderNodeConfig(rows);
  t.same(
    Object.keys(clientMap),
    links.map((link) => link.uuid),
  );
  const clients = services.xray?.inbounds.flatMap(
    (inbound) => inbound.settings.clients as { email: string; id?: string; password?: string }[],
  );
  const held = new Map(clients?.map((one) => [one.email, one.id ?? one.password]));
  t.equal(clients?.length, links.length);
  for (const { uuid, credential, protocol } of links) {
    t.equal(held.get(uuid), protocol === 'VLESS' ? credentialUuid(credential) : credential);
  }
});
