import type { Agent } from './agent.ts';
import { deliver } from './deliver.ts';
import { recordUnexpected } from './ledger.ts';

/**
 * Registers an agent by its code, over HTTP as a new node does. A code works once, so if the answer is
 * lost, the key is lost too. Then `recode` issues a new code, as an operator would. False if the run
 * ended first or if Core refused.
 */
export async function registerAgent(
  agent: Agent,
  recode: (nodeId: number) => Promise<string>,
): Promise<boolean> {
  const { node, ledger } = agent;
  let { code } = node;
  for (let codes = 1; codes <= codesMax; codes += 1) {
    const { name, host, ip, region } = node;
    const end = await deliver(agent.delivery, 'register', {
      method: 'POST',
      path: '/node/register',
      headers: { 'content-type': 'application/json' },
      body: Buffer.from(JSON.stringify({ code, name, host, ip, region })),
    });
    if (end.kind === 'done') return takeKey(agent, end.body);
    if (end.kind !== 'refused') return false;
    if (end.status !== 403 || !end.mayBeStored) {
      recordUnexpected(ledger, `registration of node ${node.nodeId} refused: ${end.reason}`);
      return false;
    }
    code = await recode(node.nodeId);
  }
  return false;
}

const codesMax = 5;

function takeKey(agent: Agent, body: Buffer): boolean {
  const answer = JSON.parse(body.toString('utf8')) as { authKey?: unknown; nodeId?: unknown };
  if (typeof answer.authKey !== 'string' || answer.nodeId !== agent.node.nodeId) {
    recordUnexpected(agent.ledger, `registration of node ${agent.node.nodeId} got a wrong answer`);
    return false;
  }
  agent.authKey = answer.authKey;
  return true;
}
