import fc from 'fast-check';
import t from 'tap';
import { linkUuid, linkUuidBytesSql, parseLinkUuid } from '../../src/render/link-uuid.ts';
import { openStores } from '../support/stores.ts';

const { pool } = await openStores(t, { max: 1, connectTimeoutMs: 60_000 });
const ids = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });

t.test('a UUID of a link is made of its ids, and says them', async (t) => {
  t.equal(linkUuid(1, 12), '00000000-0000-8001-8000-00000000000c');
  fc.assert(
    fc.property(ids, ids, (subscriptionId, nodeProtocolId) => {
      const uuid = linkUuid(subscriptionId, nodeProtocolId);
      t.match(uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
      t.same(parseLinkUuid(uuid), { subscriptionId, nodeProtocolId });
    }),
    { numRuns: 50 },
  );
  t.equal(parseLinkUuid('0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11'), undefined);
  t.equal(parseLinkUuid('ffffffff-ffff-8fff-8fff-ffffffffffff'), undefined, 'ids are below 2^53');
});

t.test('Postgres makes the same UUID', async (t) => {
  const pairs = [
    ...fc.sample(fc.tuple(ids, ids), 50),
    [1, 4_095],
    [4_096, 1],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ];
  const { rows } = await pool.query<{ uuid: string }>(
    `SELECT encode(${linkUuidBytesSql('s', 'p')}, 'hex')::uuid AS uuid
     FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS given (s, p, at) ORDER BY at`,
    [pairs.map(([subscription]) => subscription), pairs.map(([, protocol]) => protocol)],
  );
  t.same(
    rows.map((row) => row.uuid),
    pairs.map(([subscription = 0, protocol = 0]) => linkUuid(subscription, protocol)),
  );
});
