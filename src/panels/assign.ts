import { z } from 'zod';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { credentialFault } from '../protocols/credential.ts';
import { shadowsocksMethods } from '../protocols/shadowsocks-key.ts';
import type { Queryable } from '../stores/postgres.ts';
import type { Note, PanelAccount, PanelCredential, PanelInbound } from './account.ts';

/** A protocol that Core serves, as far as an import must know it. */
export interface ServedProtocol {
  id: number;
  protocol: VpnProtocol;
  port: number;
  groups: string[];
  settings: z.infer<typeof settingsSchema>;
}

/** The settings by which a client app of another panel fits or does not. */
const settingsSchema = z.object({
  network: z.string().optional(),
  security: z.string().optional(),
  flow: z.string().optional(),
  method: z.string().optional(),
  serverKey: z.string().optional(),
  tlsDomain: z.string().optional(),
});

/** The protocols of all nodes that are not revoked. */
export async function readServed(db: Queryable): Promise<ServedProtocol[]> {
  const { rows } = await db.query<Omit<ServedProtocol, 'settings'> & { settings: unknown }>(
    `SELECT p.id, p.protocol, p.port, p.settings,
       array(SELECT g.name FROM protocol_groups pg JOIN groups g ON g.id = pg.group_id
         WHERE pg.node_protocol_id = p.id) AS groups
     FROM node_protocols p JOIN nodes n ON n.id = p.node_id
     WHERE n.revoked_at IS NULL ORDER BY p.id`,
  );
  return rows.map((row) => ({ ...row, settings: settingsSchema.parse(row.settings) }));
}

/** What the operator says of the move. */
export interface AssignOptions {
  /** Protocols of an inbound, by its name in the panel. */
  maps: ReadonlyMap<string, readonly number[]>;
  /** Groups of who is in an inbound, squad or group of the panel. */
  groupsOfLabels: ReadonlyMap<string, readonly string[]>;
  /** Groups of all. */
  groups: readonly string[];
}

export interface InboundTarget {
  inbound: PanelInbound;
  protocols: ServedProtocol[];
}

/**
 * Finds the protocols of Core that take the place of each inbound: those that the operator names, otherwise
 * those of the same kind on the same port.
 * @throws CoreError INVALID_ARGUMENT for a name or an id that does not exist.
 */
export function assignInbounds(
  inbounds: readonly PanelInbound[],
  served: readonly ServedProtocol[],
  maps: AssignOptions['maps'],
): InboundTarget[] {
  const labels = inbounds.map((inbound) => inbound.label);
  for (const [label, ids] of maps) {
    if (!labels.includes(label)) {
      const known = labels.length === 0 ? 'none: leave --map out' : labels.join(', ');
      throw new CoreError(
        'INVALID_ARGUMENT',
        `--map: the file has no inbound ${label}; it has ${known}`,
      );
    }
    const unknown = ids.filter((id) => !served.some((protocol) => protocol.id === id));
    if (unknown.length > 0) {
      throw new CoreError('INVALID_ARGUMENT', `--map: there is no protocol ${unknown.join(', ')}`);
    }
  }
  return inbounds.map((inbound) => {
    const named = maps.get(inbound.label);
    const protocols = served.filter((protocol) =>
      named === undefined
        ? protocol.protocol === inbound.protocol && protocol.port === inbound.port
        : named.includes(protocol.id),
    );
    return { inbound, protocols };
  });
}

/** What an account gets in Core. */
export interface Assigned {
  /** Of all links. */
  credential: string | undefined;
  /** Of links that have another. */
  links: { nodeProtocolId: number; credential: string }[];
  groups: string[];
  /** Links that client apps hold and that go on working. */
  kept: number;
  notes: Note[];
}

/** Gives an account groups and credentials, so that as many as possible of its links go on working. */
export function assignAccount(
  account: PanelAccount,
  served: readonly ServedProtocol[],
  targets: ReadonlyMap<string, readonly ServedProtocol[]>,
  options: AssignOptions,
): Assigned {
  const notes: Note[] = [];
  const groups = groupsOf(account, options);
  if (groups.length === 0)
    notes.push({ note: 'is in none of the groups of --group: it gets no link' });
  const reachable = served.filter((protocol) =>
    protocol.groups.some((name) => groups.includes(name)),
  );
  const given = new Map<number, string>();
  let kept = 0;
  for (const held of account.credentials) {
    const meant = held.inbound === undefined ? served : (targets.get(held.inbound) ?? []);
    const fitting = meant.filter(({ protocol }) => protocol === held.protocol);
    const open = fitting.filter((protocol) => reachable.includes(protocol));
    const ended = endOf(held, fitting, open);
    if (ended !== undefined) {
      notes.push(ended);
      continue;
    }
    for (const protocol of open) {
      const taken = takeCredential(held, protocol);
      if (given.has(protocol.id)) {
        const note = 'has two credentials for one protocol of Core: the first is kept';
        notes.push({ note, detail: held.inbound });
      } else {
        given.set(protocol.id, taken.credential);
        if (taken.fault === undefined) kept += 1;
        else notes.push({ note: taken.fault, detail: `protocol ${protocol.id}` });
      }
    }
  }
  // Who has a credential of the kind, or of each inbound, has a note of its own if it goes nowhere.
  const isByInbound = account.credentials.some(({ inbound }) => inbound !== undefined);
  const kinds = account.credentials.map(({ protocol }) => protocol);
  const without = reachable.filter(
    ({ id, protocol }) => !given.has(id) && (isByInbound || !kinds.includes(protocol)),
  );
  if (without.length > 0) {
    const note = 'gets links that it did not have: its groups have more protocols';
    notes.push({ note, detail: `protocol ${without.map(({ id }) => id).join(', ')}` });
  }
  return { ...sharedCredential(given, account), groups, kept, notes };
}

function groupsOf(account: PanelAccount, options: AssignOptions): string[] {
  if (options.groupsOfLabels.size === 0) return [...options.groups];
  return [...new Set(account.labels.flatMap((label) => options.groupsOfLabels.get(label) ?? []))];
}

/** Why a credential goes nowhere. */
function endOf(
  held: PanelCredential,
  fitting: readonly ServedProtocol[],
  open: readonly ServedProtocol[],
): Note | undefined {
  const detail = held.inbound ?? held.protocol;
  if (held.protocol === 'SHADOWSOCKS' && !isServedMethod(held.method)) {
    const note = 'has a Shadowsocks password of a method that Core does not serve (only 2022 AES)';
    return { note, detail: held.method ?? 'no method' };
  }
  const fault = credentialFault(held.credential);
  if (fault !== undefined) {
    return { note: 'has a credential that Core does not take', detail: `${detail}: ${fault}` };
  }
  if (/^(VLESS|VMESS)$/.test(held.protocol) && !isXrayId(held.credential)) {
    return { note: 'has an id that Xray does not take: up to 30 bytes, or a UUID', detail };
  }
  if (fitting.length === 0) return { note: 'has a link for which Core has no protocol', detail };
  if (open.length > 0) return undefined;
  return { note: 'has a link to a protocol of which it has no group', detail };
}

function isServedMethod(method: string | undefined): boolean {
  return shadowsocksMethods.some((known) => known === method);
}

/** Xray maps a text of up to 30 bytes to a UUID, and reads a longer one as a UUID. */
function isXrayId(id: string): boolean {
  return Buffer.byteLength(id) <= 30 || /^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$/i.test(id);
}

/** The credential for a protocol, and what about the client app does not fit it. */
function takeCredential(
  held: PanelCredential,
  { protocol, settings }: ServedProtocol,
): { credential: string; fault?: string } {
  const { credential } = held;
  if (protocol === 'VLESS') {
    const isVision = settings.network === 'raw' && settings.security !== 'none';
    if (!isVision || held.flow === settings.flow) return { credential };
    const fault = `has ${held.flow ?? 'no flow'} in its app, and the protocol has ${settings.flow ?? 'no flow'}`;
    return { credential, fault: `${fault}: the app needs the new link` };
  }
  if (protocol === 'SHADOWSOCKS') {
    const isSame = held.method === settings.method && held.serverKey === settings.serverKey;
    if (isSame) return { credential };
    return {
      credential,
      fault: 'has another Shadowsocks method or server key: give the protocol its own',
    };
  }
  if (protocol !== 'MTPROTO') return { credential };
  const [, secret, domain = ''] = /^(?:ee|dd)?([0-9a-f]{32})([0-9a-f]*)$/i.exec(credential) ?? [];
  if (secret === undefined) return { credential, fault: 'has an MTProto secret that is no hex' };
  const tlsDomain = Buffer.from(domain, 'hex').toString();
  if (tlsDomain === '' || tlsDomain === settings.tlsDomain) return { credential: secret };
  return {
    credential: secret,
    fault: `has the MTProto domain ${tlsDomain}: give the protocol its own`,
  };
}

/**
 * The credential that most links have is that of the subscription, so that protocols that are added later have
 * it, too. One that a single link has is that link's alone.
 */
function sharedCredential(
  given: ReadonlyMap<number, string>,
  account: PanelAccount,
): Pick<Assigned, 'credential' | 'links'> {
  const counts = new Map<string, number>();
  for (const credential of given.values()) {
    counts.set(credential, (counts.get(credential) ?? 0) + 1);
  }
  const [most] = [...counts].toSorted(([, one], [, other]) => other - one);
  // A credential that holds for all inbounds of the panel holds for all of Core.
  const everywhere = account.credentials.find(
    ({ inbound, protocol, credential: text }) =>
      inbound === undefined && protocol !== 'SHADOWSOCKS' && credentialFault(text) === undefined,
  );
  const credential = most !== undefined && most[1] > 1 ? most[0] : everywhere?.credential;
  const links = [...given]
    .filter(([, own]) => own !== credential)
    .map(([nodeProtocolId, own]) => ({ nodeProtocolId, credential: own }));
  return { credential, links };
}
