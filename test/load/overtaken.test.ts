import { pino } from 'pino';
import t from 'tap';
import { openRows } from '../../src/load/insert.ts';
import type { LoadDeps } from '../../src/load/load-stream.ts';
import { rejectRows } from '../../src/load/poison/reject.ts';
import { addToBatch, openBatch, settleBatch } from '../../src/load/settle.ts';
import { streamName } from '../../src/spool/streams.ts';
import { until } from '../support/api.ts';
import { startSpool } from '../support/spool.ts';
import { startLoadWithStoppedClock } from '../support/worker.ts';

type Load = Awaited<ReturnType<typeof startSpool>>;

const usageStream = (load: Load) => streamName(load.redisPrefix, 0, 'usage');

/**
 * A Redis for the second of two runs on a stream. At its first read, of a segment that the first run
 * left, the first run settles that segment and trims it.
 */
function overtakenAtFirstRead(load: Load): LoadDeps['redis'] {
  const { redis } = load.deps;
  let isFirst = true;
  return new Proxy(redis, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (key !== 'xrangeBuffer') return typeof value === 'function' ? value.bind(target) : value;
      return async (...given: Parameters<typeof redis.xrangeBuffer>) => {
        // The worker reads the other streams, too, and in any order.
        if (isFirst && given[0] === usageStream(load)) {
          isFirst = false;
          await load.pool.query("UPDATE segments SET state = 'settled'");
          await redis.del(usageStream(load));
        }
        return redis.xrangeBuffer(...given);
      };
    },
  });
}

/** Seals what the usage stream has, as a run that then loses the stream. */
async function sealAndLose(load: Load) {
  const client = await load.pool.connect();
  try {
    const sealed = await load.seal(client, usageStream(load));
    if (sealed?.entries === undefined) throw new Error('nothing to seal');
    return { segment: sealed.segment, entries: sealed.entries };
  } finally {
    client.release();
  }
}

const counters = async (load: Load) =>
  (
    await load.pool.query(
      'SELECT traffic_bytes_up AS up, traffic_bytes_down AS down, status FROM subscriptions',
    )
  ).rows[0];

t.test('nothing of a batch counts if another worker has settled a part of it', async (t) => {
  const load = await startSpool(t);
  const subscriptionId = await load.subscribe();
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  const batch = openBatch({ stream: usageStream(load), kind: 'usage' });
  for (let i = 0; i < 2; i += 1) {
    await load.appendUsage([{ subscriptionId }]);
    const { segment, entries } = await sealAndLose(load);
    const opened = openRows(segment, 'usage', entries.blocks, load.deps.buffers);
    const payloads = opened.months.map((month) => opened.payload(month, new Set()));
    addToBatch(batch, segment, payloads);
  }
  const { segmentIds } = batch;
  await load.pool.query("UPDATE segments SET state = 'settled' WHERE id = $1", [segmentIds[0]]);
  t.same(await settleBatch(client, batch), { outcome: 'overtaken', segmentIds });
  t.same(await counters(load), { up: 0, down: 0, status: 'active' });
  await load.run('usage');
  t.same(await counters(load), { up: 10, down: 100, status: 'active' }, 'the other segment does');
});

t.test('a run is overtaken by one that lost the stream and settles its segment', async (t) => {
  const load = await startSpool(t);
  await load.appendUsage([{}]);
  const { segment } = await sealAndLose(load);
  t.same(await load.run('usage', { redis: overtakenAtFirstRead(load) }), {
    outcome: 'overtaken',
    segmentIds: [segment.id],
  });
  const { rows } = await load.pool.query('SELECT last_error FROM segments');
  t.same(rows, [{ last_error: null }], 'that is no failure');
  t.match(await load.run('usage'), { outcome: 'drained', segments: 0 });
});

t.test('a run is overtaken while its batch is settled, and the next one goes on', async (t) => {
  const load = await startSpool(t);
  const subscriptionId = await load.subscribe();
  await load.appendUsage([{ subscriptionId }]);
  const { segment } = await sealAndLose(load);
  const run = await load.run('usage', {
    failpoint: async (name) => {
      if (name !== 'settle:before') return;
      await load.pool.query("UPDATE segments SET state = 'settled'");
    },
  });
  t.same(run, { outcome: 'overtaken', segmentIds: [segment.id] });
  t.same(await counters(load), { up: 0, down: 0, status: 'active' });
  await load.appendUsage([{ subscriptionId }]);
  t.match(await load.run('usage'), { outcome: 'drained', segments: 1 });
  t.same(await counters(load), { up: 10, down: 100, status: 'active' });
});

t.test('a run is overtaken before it rejects rows, and rejects none', async (t) => {
  const load = await startSpool(t);
  await load.appendUsage([{}]);
  const { segment } = await sealAndLose(load);
  await load.run('usage');
  const client = await load.pool.connect();
  t.teardown(() => client.release());
  const refused = [{ position: 0, bytes: Buffer.alloc(56), reason: 'VIOLATED_CONSTRAINT' }];
  t.same(await rejectRows(client, segment, 'usage', 202611, refused), {
    outcome: 'overtaken',
    segmentIds: [segment.id],
  });
  t.same((await load.pool.query('SELECT * FROM rejected_rows')).rows, []);
  t.same((await load.pool.query('SELECT rejected FROM segments')).rows, [{ rejected: 0 }]);
});

t.test('a worker logs that a run was overtaken, and the stream does not rest', async (t) => {
  const load = await startSpool(t);
  await load.appendUsage([{}]);
  const { segment } = await sealAndLose(load);
  const lines: string[] = [];
  // A stream that rests would never run again.
  await startLoadWithStoppedClock(t, load, {
    redis: overtakenAtFirstRead(load),
    log: pino({ level: 'info' }, { write: (line) => lines.push(line) }),
  });
  await until(
    async () => lines.find((line) => line.includes('another run has settled segments')),
    (line) => line !== undefined,
  );
  t.match(lines.join(''), `"segmentIds":[${segment.id}]`);
  t.notMatch(lines.join(''), 'stream failed');
  await load.appendUsage([{}]);
  const rows = async () => (await load.rows<{ n: number }>('SELECT count() AS n FROM usage'))[0]?.n;
  await until(rows, (n) => n === 1);
});
