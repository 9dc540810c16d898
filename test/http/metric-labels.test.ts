import t from 'tap';
import type { Route, RouteRequest } from '../../src/http/route.ts';
import { metricsRoute } from '../../src/http/routes/metrics.ts';
import { createReadiness } from '../../src/stores/readiness.ts';
import { post, registerTestNode, startTestApi, until, usageEntry } from '../support/api.ts';
import { startTestWorker } from '../support/worker.ts';

/** Names and labels of all series, and their values. */
async function seriesOf(route: Route): Promise<Map<string, number>> {
  // The route does not look at the request.
  const { body } = await route.handle({} as RouteRequest);
  const lines = String(body)
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const cut = line.lastIndexOf(' ');
      return [line.slice(0, cut), Number(line.slice(cut + 1))];
    }),
  );
}

t.test('nothing that a node says becomes a label or another series', async (t) => {
  const api = await startTestApi(t, { CORE_SPOOL_SHARDS: '1', CORE_LOAD_INTERVAL_MS: '50' });
  const { pool, redis, config } = api;
  const clickhouse = await startTestWorker(t, api);
  const route = metricsRoute({
    pool,
    redis,
    prefix: config.stores.redisPrefix,
    health: config.nodes,
    readiness: createReadiness({ pool, redis, clickhouse }),
  });
  const series = () => seriesOf(route);
  const node = await registerTestNode(api);
  const before = [...(await series()).keys()];
  t.ok(before.length > 10);

  const said = 'said-by-the-node';
  const posts: [path: string, body: object][] = [
    [
      '/node/usage',
      { entries: [usageEntry({ subscriptionId: 99 }), usageEntry({ nodeProtocolId: 98 })] },
    ],
    [
      '/node/outbound-usage',
      {
        items: [
          { tag: said, bytesUp: 1, bytesDown: 1 },
          { tag: `${said}"2`, bytesUp: 1, bytesDown: 1 },
        ],
      },
    ],
    [
      '/node/session-events',
      {
        events: [
          {
            userId: 9,
            protocol: 'VLESS',
            eventType: 'ONLINE',
            occurredAt: '2026-11-24T10:00:00Z',
            ipAddress: '198.51.100.7',
          },
        ],
      },
    ],
    ['/node/error', { message: said, code: said, details: { [said]: said } }],
    ['/node/heartbeat', { ip: '198.51.100.7', revision: 999 }],
    ['/node/config/applied', { revision: 1 }],
  ];
  for (const [path, body] of posts) {
    t.equal((await post(api, path, body, { node })).status, 200, path);
  }
  const stream = `${config.stores.redisPrefix}:{s0}:usage`;
  const after = await until(
    series,
    (now) => now.get(`core_unknown_rows_total{stream="${stream}"}`) === 2,
  );
  t.same([...after.keys()].sort(), before.sort());
  t.notOk([...after.keys()].some((name) => name.includes(said)));
});
