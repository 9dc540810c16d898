import { isMap, isNode, isPair, isSeq, LineCounter, type ParsedNode, parseDocument } from 'yaml';
import { z } from 'zod';
import { type VpnProtocol, vpnProtocols } from '../contract/enums.ts';
import { hostOrNone, ipOrNone, line } from '../contract/fields.ts';
import { limits } from '../contract/limits.ts';
import { CoreError, issuePath } from '../errors.ts';
import { othersTag } from '../nodes/outbound-traffic.ts';
import { type Outbound, outboundProtocols } from '../protocols/outbound/outbound.ts';
import { isDeeperThan } from '../protocols/raw.ts';
import { ruleSchema } from '../protocols/routing/rule.ts';
import { collisionOf } from '../settings/port-transports.ts';
import { protocolName } from '../settings/protocol-names.ts';
import { isStorable } from '../text.ts';
import { holdsPlaceholder, keptMarker, maskText } from './secrets.ts';

/** What a fleet file declares of a node. If a list is absent, `core apply` leaves Core's as it is. */
export interface FleetNode {
  name: string;
  region?: string | undefined;
  host?: string | undefined;
  ip?: string | undefined;
  protocols?: FleetProtocol[] | undefined;
  outbounds?: FleetOutbound[] | undefined;
  rules?: Record<string, unknown>[] | undefined;
  /** What its Xray has beside these. */
  xray?: Record<string, unknown> | undefined;
}

export interface FleetProtocol {
  /** What Core recognises it by. If absent, its protocol and port are. */
  name?: string | undefined;
  /** The groups that it is in. If absent, they stay as they are. */
  groups?: string[] | undefined;
  protocol: VpnProtocol;
  port: number;
  settings: Record<string, unknown>;
}

export type FleetOutbound = Outbound;

export interface FleetFile {
  /** Groups that `core apply` makes if they do not exist. It removes none. */
  groups: string[];
  nodes: FleetNode[];
  /** Throws one error that names every fault with its line, if there are any. */
  refuse(faults: readonly Fault[]): void;
}

export interface Fault {
  /** Place in the file, like `['nodes', 0, 'rules', 2]`. */
  path: readonly PropertyKey[];
  message: string;
}

const nodesMax = 20_000;
const listMax = 1_000;
const faultsShownMax = 20;
const depthMax = 64;
const tooDeep = `Must have ${depthMax} levels at most`;

const cannotBeStored = { message: 'Must hold neither U+0000 nor half a surrogate pair' };

const settings = z
  .record(z.string(), z.json())
  .refine(isStorable, cannotBeStored)
  .refine((given) => !holdsPlaceholder(given, [maskText]), {
    message: `Holds ${maskText}, which a plan shows in the place of a secret`,
  })
  .default({});
/** A rule, perhaps with markers from an export without secrets. */
const rule = z.record(z.string(), z.unknown()).check(({ value, issues }) => {
  const parsed = ruleSchema.safeParse(ruleWithoutMarkers(value));
  for (const issue of parsed.error?.issues ?? []) issues.push(issue as z.core.$ZodRawIssue);
});

/** Replaces markers by values that the schema accepts: Core checked the kept ones when it stored them. */
function ruleWithoutMarkers(rule: Record<string, unknown>): Record<string, unknown> {
  const accepted: Record<string, unknown> = {
    user: ['regexp:kept'],
    attrs: {},
    webhook: { url: 'https://kept.invalid/' },
  };
  const fields = Object.entries(rule).map(([name, value]) => [
    name,
    value === keptMarker && name in accepted ? accepted[name] : value,
  ]);
  return Object.fromEntries(fields);
}

const groups = z.array(line.min(1).max(limits.nameCharsMax)).max(listMax);
const protocol = z.strictObject({
  name: protocolName.optional(),
  groups: groups.optional(),
  protocol: z.enum(vpnProtocols),
  port: z.int().min(1).max(65_535),
  settings,
});
const outbound = z.strictObject({
  tag: line
    .max(limits.outboundTagCharsMax)
    .min(1)
    .refine((given) => given !== othersTag, {
      message: `${othersTag} is reserved: Core counts the traffic of tags without a row under it`,
    }),
  protocol: z.enum(outboundProtocols),
  settings,
  // `planOutbounds` checks what is in these, once it has put stored values at the markers.
  sendThrough: z.string().optional(),
  targetStrategy: z.string().optional(),
  streamSettings: settings.unwrap().optional(),
  mux: settings.unwrap().optional(),
  proxySettings: settings.unwrap().optional(),
  raw: z.union([z.literal(keptMarker), settings.unwrap()]).optional(),
});
const node = z.strictObject({
  name: line.max(limits.nameCharsMax).min(1),
  region: line.max(limits.nameCharsMax).optional(),
  host: hostOrNone.optional(),
  ip: ipOrNone.optional(),
  protocols: z.array(protocol).max(listMax).optional(),
  outbounds: z.array(outbound).max(listMax).optional(),
  rules: z.array(rule).max(listMax).optional(),
  // `planXray` checks what is in it, once it has put stored values at the markers.
  xray: settings.unwrap().optional(),
});
const fleet = z.strictObject({
  version: z.literal(1),
  groups: groups.default([]),
  nodes: z.array(node).max(nodesMax),
});

/**
 * Reads a fleet file.
 * @param fileName For the error.
 * @throws CoreError INVALID_ARGUMENT naming the line of each fault: broken YAML, unknown fields,
 * values of the wrong shape, and names, ports or tags that come twice.
 */
export function parseFleetFile(fileName: string, source: string): FleetFile {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false });
  const broken = document.errors.map(
    (error) => `line ${lines.linePos(error.pos[0]).line}: ${firstLine(error.message)}`,
  );
  if (broken.length > 0) throw refusal(fileName, broken, document.errors[0]);
  const lineOf = (path: readonly PropertyKey[]): number =>
    lines.linePos(offsetOf(document.contents, path)).line;
  const refuse = (faults: readonly Fault[]): void => {
    if (faults.length === 0) return;
    throw refusal(
      fileName,
      faults.map(({ path, message }) => {
        const place = path.length === 0 ? '' : `${issuePath(path)}: `;
        return `line ${lineOf(path)}: ${place}${message}`;
      }),
    );
  };
  let value: unknown;
  try {
    value = document.toJS();
  } catch (cause) {
    // An alias that names nothing, or aliases that would expand to far more than the file.
    throw refusal(fileName, [firstLine((cause as Error).message)], cause);
  }
  if (isDeeperThan(value, depthMax)) throw refusal(fileName, [tooDeep]);
  const parsed = fleet.safeParse(value);
  if (!parsed.success) refuse(parsed.error.issues.flatMap(faultsOf));
  // Postgres returns -0 in JSON as 0. The plan compares with that, so the file's values go through
  // JSON, too.
  const nodes: FleetNode[] = JSON.parse(JSON.stringify(parsed.data?.nodes ?? []));
  refuse(duplicates(nodes));
  return { groups: parsed.data?.groups ?? [], nodes, refuse };
}

/** Zod reports an unknown field at its object. The fault is at the field itself. */
function faultsOf(issue: z.core.$ZodIssue): Fault[] {
  if (issue.code !== 'unrecognized_keys') return [{ path: issue.path, message: issue.message }];
  return issue.keys.map((key) => ({ path: [...issue.path, key], message: 'Unknown field' }));
}

function duplicates(nodes: readonly FleetNode[]): Fault[] {
  const faults: Fault[] = [];
  const once = (seen: Set<unknown>, value: unknown, path: PropertyKey[], what: string): void => {
    if (seen.has(value)) faults.push({ path, message: `${what} ${String(value)} comes twice` });
    seen.add(value);
  };
  const names = new Set<unknown>();
  for (const [index, one] of nodes.entries()) {
    once(names, one.name, ['nodes', index, 'name'], 'The node');
    const [tags, protocols] = [new Set<unknown>(), new Set<unknown>()];
    for (const [at, protocol] of (one.protocols ?? []).entries()) {
      if (protocol.name !== undefined) {
        once(protocols, protocol.name, ['nodes', index, 'protocols', at, 'name'], 'The protocol');
      }
      const place = (one.protocols ?? [])
        .slice(0, at)
        .map((earlier) => collisionOf(protocol, earlier))
        .find((collision) => collision !== undefined);
      if (place === undefined) continue;
      faults.push({
        path: ['nodes', index, 'protocols', at, 'port'],
        message: `${place} comes twice`,
      });
    }
    for (const [at, { tag }] of (one.outbounds ?? []).entries()) {
      once(tags, tag, ['nodes', index, 'outbounds', at, 'tag'], 'The outbound');
    }
  }
  return faults;
}

/** The offset of the deepest existing part of a path. For a missing field that is its object. */
function offsetOf(contents: ParsedNode | null, path: readonly PropertyKey[]): number {
  let found: unknown = contents;
  let offset = contents?.range[0] ?? 0;
  for (const step of path) {
    let next: unknown;
    if (isMap(found)) {
      const pair = found.items.find(
        (item) => isPair(item) && String(isNode(item.key) ? item.key.toJSON() : item.key) === step,
      );
      if (isNode(pair?.key) && pair.key.range) offset = pair.key.range[0];
      next = pair?.value;
    } else if (isSeq(found) && typeof step === 'number') {
      next = found.items[step];
      if (isNode(next) && next.range) offset = next.range[0];
    }
    if (next === undefined) break;
    found = next;
  }
  return offset;
}

function firstLine(message: string): string {
  return message.split('\n')[0] ?? message;
}

function refusal(fileName: string, faults: readonly string[], cause?: unknown): CoreError {
  const shown = faults.slice(0, faultsShownMax);
  const more = faults.length - shown.length;
  return new CoreError(
    'INVALID_ARGUMENT',
    `${fileName}: ${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`,
    { cause, issues: shown.map((message) => ({ path: fileName, message })) },
  );
}
