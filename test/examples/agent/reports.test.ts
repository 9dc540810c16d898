import t from 'tap';
import { startAgent } from '../../../examples/agent/agent.ts';
import type { Settings } from '../../../examples/agent/settings.ts';
import { type NodeState, showNode } from '../../../src/nodes/node-state.ts';
import { addProtocol } from '../../../src/settings/protocols.ts';
import { createSubscription } from '../../../src/subscriptions/create.ts';
import { createUser } from '../../../src/subscriptions/users.ts';
import { registerTestNode, startTestApi, until } from '../../support/api.ts';
import { publishNow } from '../../support/publish.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';

const waitMsMax = 60_000;

/** An agent in this process. Its node has only MTProto, so that it needs no Xray. */
t.test(
  'a service that the agent cannot run: Core hears of it and rolls nothing back',
  async (t) => {
    const api = await startTestApi(t);
    const { pool, redis, log, config } = api;
    const deps = { pool, redis, prefix: config.stores.redisPrefix };
    const { nodeId, authKey } = await registerTestNode(api);
    const settings = {
      ...{ url: api.url, dataDir: scratchFolder(t), xray: 'no-such-program', ip: '' },
      ...{ heartbeatSeconds: 0.05, usageSeconds: 60, offlineSeconds: 60, retrySeconds: 1 },
      ...{ reapplySeconds: 0, spoolBytesMax: 1e6 },
    } as Settings;
    const start = () => startAgent(settings, { nodeId, authKey }, log);
    const show = () => showNode(pool, nodeId, config.nodes);
    /** Publishes what has changed, and returns once the node runs it and Core knows what it lacks. */
    const untilSaid = () => {
      const ask = async () => {
        await publishNow(deps);
        return show();
      };
      const isSaid = ({ unpublishedSince, reportedRevision, revision, lastError }: NodeState) =>
        unpublishedSince === null && reportedRevision === revision && lastError !== null;
      return until(ask, isSaid, waitMsMax);
    };
    const addUser = async (): Promise<void> => {
      const userId = await createUser(pool, { name: 'u' });
      await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null });
    };
    let agent = await start();
    t.teardown(() => agent.close());
    await addProtocol(pool, { nodeId, protocol: 'MTPROTO', port: 443, settings: {} });
    // Core sends no inbound that has no user.
    await addUser();
    const first = await untilSaid();
    const expected = { syncStatus: 'failed', faulty: null, rolledBackTo: null };
    t.match(first, {
      ...expected,
      lastError: { code: 'SERVICE_UNSUPPORTED', details: { service: 'mtproto' } },
    });

    await addUser();
    const second = await untilSaid();
    t.ok(second.revision > first.revision, 'the agent takes the next revision');
    t.match(second, expected);

    await agent.close();
    const errors = async () =>
      Number((await pool.query(`SELECT 1 FROM node_reports WHERE kind = 'error'`)).rowCount);
    const before = await errors();
    agent = await start();
    await until(errors, (count) => count > before, waitMsMax);
    t.match(await show(), { ...expected, lastError: { code: 'SERVICE_UNSUPPORTED' } });
  },
);
