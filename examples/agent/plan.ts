import {
  clientsOf,
  type JsonObject,
  type Tagged,
  withClients,
  type XrayConfig,
} from './xray-config.ts';

/** What changes from the running configuration to the next one. */
export type Plan =
  | { kind: 'same' }
  /** Xray's API cannot change this while it runs. */
  | { kind: 'restart'; why: string }
  | ({ kind: 'changes' } & Changes);

export interface Changes {
  outbounds: Change[];
  inbounds: Change[];
  /** Users of inbounds that stay. One whose credential differs is in both lists. */
  usersAdded: { tag: string; protocol: string; client: JsonObject }[];
  usersRemoved: { tag: string; email: string }[];
  hasOtherRules: boolean;
}

/** An inbound or outbound that comes (`from` is absent), goes (`to` is absent), or is replaced. */
export interface Change {
  from?: Tagged;
  to?: Tagged;
}

/**
 * Compares what Xray runs with what it should run. Pure. The API can add and remove inbounds, outbounds
 * and users, and it can replace the rules together with the balancers. Anything else needs a restart, and
 * so does another first outbound, because Xray sends what no rule matches to the one that came first.
 */
export function planChange(from: XrayConfig, to: XrayConfig): Plan {
  const rest = (config: XrayConfig): JsonObject => {
    const { inbounds: _, outbounds: __, routing, ...others } = config;
    const { rules: ___, balancers: ____, ...otherRouting } = routing;
    return { ...others, routing: otherRouting };
  };
  const [restFrom, restTo] = [rest(from), rest(to)];
  const names = new Set([...Object.keys(restFrom), ...Object.keys(restTo)]);
  const other = [...names].find((name) => !isEqual(restFrom[name], restTo[name]));
  if (other !== undefined) return { kind: 'restart', why: `${other} differs` };
  if (!isEqual(from.outbounds[0], to.outbounds[0])) {
    return { kind: 'restart', why: 'the first outbound differs' };
  }
  const changes: Changes = {
    outbounds: changesOf(from.outbounds, to.outbounds, (outbound) => outbound),
    inbounds: changesOf(from.inbounds, to.inbounds, (inbound) => withClients(inbound, [])),
    ...usersOf(from, to),
    hasOtherRules:
      !isEqual(from.routing.rules, to.routing.rules) ||
      !isEqual(from.routing['balancers'], to.routing['balancers']),
  };
  const isSame =
    changes.outbounds.length === 0 &&
    changes.inbounds.length === 0 &&
    changes.usersAdded.length === 0 &&
    changes.usersRemoved.length === 0 &&
    !changes.hasOtherRules;
  return isSame ? { kind: 'same' } : { kind: 'changes', ...changes };
}

function changesOf(
  from: readonly Tagged[],
  to: readonly Tagged[],
  compared: (one: Tagged) => Tagged,
): Change[] {
  const before = new Map(from.map((one) => [one.tag, one]));
  const after = new Map(to.map((one) => [one.tag, one]));
  const gone = from.filter(({ tag }) => !after.has(tag)).map((one) => ({ from: one }));
  const come = to.flatMap((one): Change[] => {
    const former = before.get(one.tag);
    if (former === undefined) return [{ to: one }];
    return isEqual(compared(former), compared(one)) ? [] : [{ from: former, to: one }];
  });
  // What goes, goes first: what comes may have its port.
  return [...gone, ...come];
}

/** Users of inbounds that stay as they are otherwise. An inbound that is replaced brings its users. */
function usersOf(from: XrayConfig, to: XrayConfig): Pick<Changes, 'usersAdded' | 'usersRemoved'> {
  const usersAdded: Changes['usersAdded'] = [];
  const usersRemoved: Changes['usersRemoved'] = [];
  const before = new Map(from.inbounds.map((inbound) => [inbound.tag, inbound]));
  for (const inbound of to.inbounds) {
    const former = before.get(inbound.tag);
    if (former === undefined) continue;
    if (!isEqual(withClients(former, []), withClients(inbound, []))) continue;
    const { tag, protocol } = inbound;
    const [had, has] = [clientsOf(former), clientsOf(inbound)];
    for (const [email, client] of has) {
      const known = had.get(email);
      if (known !== undefined && isEqual(known, client)) continue;
      if (known !== undefined) usersRemoved.push({ tag, email });
      usersAdded.push({ tag, protocol, client });
    }
    for (const email of had.keys()) if (!has.has(email)) usersRemoved.push({ tag, email });
  }
  return { usersAdded, usersRemoved };
}

/** The links whose sessions must end: those that are gone, and those whose credential is another one. */
export function linksToEnd(from: XrayConfig, to: XrayConfig): Map<string, Tagged> {
  const ended = new Map<string, Tagged>();
  const after = new Map(to.inbounds.map((inbound) => [inbound.tag, clientsOf(inbound)]));
  for (const inbound of from.inbounds) {
    for (const [email, client] of clientsOf(inbound)) {
      const next = after.get(inbound.tag)?.get(email);
      if (next === undefined || !isEqual(next, client)) ended.set(email, inbound);
    }
  }
  return ended;
}

/** Both come from JSON with keys in Core's order, which does not change. */
function isEqual(left: unknown, right: unknown): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}
