import type { Change, Changes } from './plan.ts';
import type { ProxyRunner } from './proxy.ts';
import type { Running } from './running.ts';
import type { XrayUser } from './xray-api.ts';
import {
  clientsOf,
  type JsonObject,
  routingWithout,
  type Tagged,
  withClients,
  type XrayConfig,
} from './xray-config.ts';

/** Xray reads a message of up to 4 MiB, so most users of a large inbound are added one by one. */
const clientsInOneMessageMax = 5_000;
const callsAtOnceMax = 50;

/** How a change through the API ended. */
export type Changed =
  | { kind: 'done' }
  /** Xray refused a part. What had been changed was put back. */
  | { kind: 'refused'; message: string }
  /** Xray refused a part, and then what had been changed could not be put back. */
  | { kind: 'broken'; message: string };

/**
 * Changes what the proxy runs, by its API. What comes is added before users are taken away; the rules
 * come between, because they name outbounds. Sessions of removed users go on: see `endSessions`.
 */
export async function changeRunning(
  runner: ProxyRunner,
  running: Running,
  to: XrayConfig,
  changes: Changes,
): Promise<Changed> {
  const undo: (() => Promise<unknown>)[] = [];
  const { api } = running;
  try {
    for (const { from, to: next } of changes.outbounds) {
      // An outbound that goes is taken away last: the old rules still name it.
      if (next === undefined) continue;
      if (from !== undefined) await api.removeOutbound(from.tag);
      undo.unshift(() => replaceOutbound(runner, running, next.tag, from));
      await addOutbound(runner, running, next);
    }
    for (const change of changes.inbounds) {
      undo.unshift(() => replaceInbound(runner, running, backOf(change)));
      await replaceInbound(runner, running, change);
    }
    if (changes.hasOtherRules) {
      undo.unshift(() => setRules(runner, running, running.xray));
      await setRules(runner, running, to);
    }
    undo.unshift(() => resetUsers(running, changes));
    await changeUsers(running, changes);
    for (const { from, to: next } of changes.outbounds) {
      if (from !== undefined && next === undefined) await api.removeOutbound(from.tag);
    }
    return { kind: 'done' };
  } catch (thrown) {
    const message = (thrown as Error).message;
    try {
      for (const step of undo) await step();
      return { kind: 'refused', message };
    } catch (cause) {
      return { kind: 'broken', message: `${message}; putting back: ${(cause as Error).message}` };
    }
  }
}

/** The rules of a configuration, in front of them the rule that blocks removed links. */
export function setRules(runner: ProxyRunner, running: Running, xray: XrayConfig): Promise<void> {
  const routing = routingWithout(xray, [...running.blocked]);
  return runner.change('adrules', running.apiPort, { routing });
}

/** Removes an inbound, which closes its port, or adds one, or both. */
export async function replaceInbound(
  runner: ProxyRunner,
  running: Running,
  { from, to }: Change,
): Promise<void> {
  // It may be gone already, if an earlier step failed.
  if (from !== undefined) await running.api.removeInbound(from.tag).catch(() => undefined);
  if (to === undefined) return;
  const clients = [...clientsOf(to).values()];
  const inline = withClients(to, clients.slice(0, clientsInOneMessageMax));
  const whole = clients.length === 0 ? to : inline;
  await runner.change('adi', running.apiPort, { inbounds: [whole] });
  const { tag, protocol } = to;
  const rest = clients.slice(clientsInOneMessageMax);
  await atOnce(rest, (client) => running.api.addUser(tag, userOf(protocol, client)));
}

function backOf({ from, to }: Change): Change {
  return { ...(to === undefined ? {} : { from: to }), ...(from === undefined ? {} : { to: from }) };
}

function addOutbound(runner: ProxyRunner, running: Running, outbound: Tagged): Promise<void> {
  return runner.change('ado', running.apiPort, { outbounds: [outbound] });
}

async function replaceOutbound(
  runner: ProxyRunner,
  running: Running,
  tag: string,
  former: Tagged | undefined,
): Promise<void> {
  await running.api.removeOutbound(tag).catch(() => undefined);
  if (former !== undefined) await addOutbound(runner, running, former);
}

/** A user whose credential differs is removed first, because Xray takes a name once. */
async function changeUsers({ api }: Running, changes: Changes): Promise<void> {
  const added = new Set(changes.usersAdded.map(({ client }) => client['email']));
  const [again, gone] = [[], []] as [Changes['usersRemoved'], Changes['usersRemoved']];
  for (const user of changes.usersRemoved) (added.has(user.email) ? again : gone).push(user);
  await atOnce(again, ({ tag, email }) => api.removeUser(tag, email));
  await atOnce(changes.usersAdded, ({ tag, protocol, client }) =>
    api.addUser(tag, userOf(protocol, client)),
  );
  await atOnce(gone, ({ tag, email }) => api.removeUser(tag, email));
}

async function resetUsers({ api, xray }: Running, changes: Changes): Promise<void> {
  const inbounds = new Map(xray.inbounds.map((inbound) => [inbound.tag, inbound]));
  const touched = [
    ...changes.usersAdded.map(({ tag, client }) => ({ tag, email: String(client['email']) })),
    ...changes.usersRemoved,
  ];
  await atOnce(touched, ({ tag, email }) => api.removeUser(tag, email).catch(() => undefined));
  await atOnce(changes.usersRemoved, async ({ tag, email }) => {
    const inbound = inbounds.get(tag);
    const client = inbound && clientsOf(inbound).get(email);
    if (inbound !== undefined && client !== undefined) {
      await api.addUser(tag, userOf(inbound.protocol, client));
    }
  });
}

/** A client of an inbound's JSON as Xray's API takes it. */
function userOf(protocol: string, client: JsonObject): XrayUser {
  const email = String(client['email']);
  const text = (name: string): string => String(client[name] ?? '');
  switch (protocol) {
    case 'vless': {
      const account = { id: text('id'), flow: text('flow') };
      return { email, accountType: 'xray.proxy.vless.Account', account };
    }
    case 'vmess':
      return { email, accountType: 'xray.proxy.vmess.Account', account: { id: text('id') } };
    case 'trojan': {
      const account = { password: text('password') };
      return { email, accountType: 'xray.proxy.trojan.Account', account };
    }
    case 'shadowsocks': {
      const account = { key: text('password') };
      return { email, accountType: 'xray.proxy.shadowsocks_2022.Account', account };
    }
    case 'hysteria': {
      const account = { auth: text('auth') };
      return { email, accountType: 'xray.proxy.hysteria.account.Account', account };
    }
    default:
      throw new Error(`This agent cannot add users to an inbound of protocol ${protocol}`);
  }
}

async function atOnce<T>(all: readonly T[], work: (one: T) => Promise<unknown>): Promise<void> {
  for (let from = 0; from < all.length; from += callsAtOnceMax) {
    await Promise.all(all.slice(from, from + callsAtOnceMax).map(work));
  }
}
