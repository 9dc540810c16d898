import type { AddressInfo } from 'node:net';
import fastify from 'fastify';
import pg from 'pg';

/*
 * The obvious first version of Core: a route that validates by JSON schema. In one transaction it inserts
 * the rows with one statement and updates the counters with another. The argument is the database's URL
 * without the password, which pg reads from PGPASSWORD. The process tells its port over IPC, and ends with
 * its parent.
 */

interface Entry {
  userId: number;
  subscriptionId: number | null;
  nodeProtocolId: number;
  bytesUp: number;
  bytesDown: number;
  recordedAt: string;
}

const id = { type: 'integer', minimum: 1 };
const bytes = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER };
const body = {
  type: 'object',
  required: ['entries'],
  properties: {
    entries: {
      type: 'array',
      maxItems: 10_000,
      items: {
        type: 'object',
        required: ['userId', 'nodeProtocolId', 'bytesUp', 'bytesDown', 'recordedAt'],
        properties: {
          userId: id,
          subscriptionId: { ...id, nullable: true },
          nodeProtocolId: id,
          bytesUp: bytes,
          bytesDown: bytes,
          recordedAt: { type: 'string', format: 'date-time' },
        },
      },
    },
  },
};

const insertRows = `
  INSERT INTO peer.usage
    (user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, recorded_at)
  SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
    $6::timestamptz[])`;
// Locks in the order of ids: otherwise two requests that name the same subscriptions deadlock.
const addToCounters = `
  WITH sums AS (
    SELECT id, sum(up)::bigint AS up, sum(down)::bigint AS down
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS given (id, up, down) GROUP BY id
  ), locked AS (
    SELECT s.id, sums.up, sums.down FROM peer.subscriptions s JOIN sums USING (id)
    ORDER BY s.id FOR UPDATE OF s
  )
  UPDATE peer.subscriptions s
  SET bytes_up = s.bytes_up + locked.up, bytes_down = s.bytes_down + locked.down
  FROM locked WHERE s.id = locked.id`;

const pool = new pg.Pool({ connectionString: process.argv[2], max: 10 });

async function store(entries: readonly Entry[]): Promise<void> {
  const column = <K extends keyof Entry>(name: K): Entry[K][] => entries.map((one) => one[name]);
  const subscriptions = column('subscriptionId');
  const counts = [column('bytesUp'), column('bytesDown')];
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    await client.query({
      name: 'rows',
      text: insertRows,
      values: [
        ...[column('userId'), subscriptions, column('nodeProtocolId')],
        ...[...counts, column('recordedAt')],
      ],
    });
    await client.query({
      name: 'counters',
      text: addToCounters,
      values: [subscriptions, ...counts],
    });
    await client.query('COMMIT');
  } catch (thrown) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw thrown;
  } finally {
    client.release();
  }
}

const app = fastify({ bodyLimit: 4 * 1024 * 1024 });
app.post<{ Body: { entries: Entry[] } }>('/node/usage', { schema: { body } }, async (request) => {
  await store(request.body.entries);
  return { ok: true };
});
process.once('disconnect', () => process.exit(0));
await app.listen({ host: '127.0.0.1', port: 0 });
const { port } = app.server.address() as AddressInfo;
process.send?.({ port });
