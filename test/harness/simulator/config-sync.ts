import type { NodeConfig } from '../../../src/contract/node-config.ts';
import { type Agent, send } from './agent.ts';
import { deliver } from './deliver.ts';
import { recordUnexpected } from './ledger.ts';

/** Fetches the configuration as an agent does, and reports the revision that it then runs. */
export async function pullAndApply(agent: Agent, isBehind: boolean): Promise<void> {
  const { config, ledger, node } = agent;
  const answer = await deliver(agent.delivery, 'config', {
    method: 'GET',
    path: '/node/config/latest',
    headers: {
      'x-node-auth-key': agent.authKey,
      'accept-encoding': agent.random() < 0.7 ? 'gzip' : 'identity',
      ...(config.etag === undefined ? {} : { 'if-none-match': config.etag }),
    },
    body: undefined,
  });
  if (answer.kind === 'refused') {
    recordUnexpected(ledger, `config of node ${node.nodeId} refused: ${answer.reason}`);
  }
  if (answer.kind !== 'done') return;
  if (answer.status === 304) {
    config.notModified += 1;
    if (config.etag === undefined) recordUnexpected(ledger, 'config: a 304 without If-None-Match');
  } else {
    readConfig(agent, answer.body, answer.headers['etag']);
  }
  if (config.revision === undefined) return;
  if (!isBehind && config.revision === config.applied) return;
  await reportApplied(agent, config.revision);
}

function readConfig(agent: Agent, body: Buffer, etag: unknown): void {
  const { config, ledger, node } = agent;
  let latest: NodeConfig;
  try {
    latest = JSON.parse(body.toString('utf8')) as NodeConfig;
  } catch {
    recordUnexpected(ledger, `config of node ${node.nodeId} is not JSON`);
    return;
  }
  if (etag !== `"${latest.revision}"`) {
    recordUnexpected(ledger, `config: revision ${latest.revision} under ETag ${String(etag)}`);
  }
  if (config.revision !== undefined && latest.revision < config.revision) {
    recordUnexpected(ledger, `config: revision ${latest.revision} after ${config.revision}`);
  }
  config.pulls += 1;
  config.etag = `"${latest.revision}"`;
  config.revision = latest.revision;
  config.wrongClients = countWrongClients(agent, latest);
}

/**
 * Every link of this node has to be in the client map with its user and subscription. The map may hold
 * more, since an operator may add subscriptions during a run.
 */
function countWrongClients(agent: Agent, latest: NodeConfig): number {
  let wrong = 0;
  for (const member of agent.node.members) {
    for (const uuid of member.uuids) {
      const client = latest.clientMap[uuid];
      const isRight =
        client?.userId === member.userId && client.subscriptionId === member.subscriptionId;
      if (!isRight) wrong += 1;
    }
  }
  return wrong;
}

async function reportApplied(agent: Agent, revision: number): Promise<void> {
  const end = await send(agent, 'applied', '/node/config/applied', { revision });
  if (end.kind === 'done') agent.config.applied = revision;
  agent.config.appliedUnknown = end.kind === 'unknown';
}
