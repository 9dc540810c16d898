import { z } from 'zod';
import { type Fault, invalidArgument } from '../../errors.ts';
import { isObject, namesLike, rawObject } from '../raw.ts';
import { balancer, burstObservatory, observatory } from './balancer.ts';
import { dnsSettings } from './dns.ts';
import { word } from './values.ts';

type Json = Record<string, unknown>;

/** What a node's Xray has beside its inbounds, outbounds and rules. */
export interface XraySettings {
  /** How rules by address match a connection to a domain. */
  domainStrategy?: string | undefined;
  dns?: Json | undefined;
  balancers?: { tag: string; selector: string[]; fallbackTag?: string | undefined }[] | undefined;
  observatory?: Json | undefined;
  burstObservatory?: Json | undefined;
  /** Merged into the root of the rendered configuration; nobody has checked it. */
  raw?: Json | undefined;
}

/** Blocks of the root by which Core counts traffic and agents reach Xray. */
const ofCore = ['policy', 'stats', 'api'] as const;

/** Where `raw` adds to Core's lists, as paths. Core reads the tags there. */
const lists = [['inbounds'], ['outbounds'], ['routing', 'rules'], ['routing', 'balancers']];
const elementsMax = 1_000;

const raw = rawObject(({ given, fault }) => {
  for (const name of ofCore.flatMap((field) => namesLike(given, field))) {
    fault([name], 'Is of Core, which counts traffic by it');
  }
  for (const [first = '', second] of lists) {
    const place = second === undefined ? given : onlySpelling(given, first, fault);
    if (place === undefined) continue;
    const path = second === undefined ? [] : [first];
    if (!isObject(place)) fault(path, 'Must be an object');
    else {
      checkList(place, second ?? first, (message, at = []) => fault([...path, ...at], message));
    }
  }
});

/** The value of a field whose key Core has to find, so that only Xray's own spelling will do. */
function onlySpelling(
  given: Json,
  field: string,
  fault: (path: string[], message: string) => void,
): unknown {
  for (const name of namesLike(given, field)) {
    if (name !== field) fault([name], `Must be written ${field}`);
  }
  return Object.hasOwn(given, field) ? given[field] : undefined;
}

function checkList(
  place: Json,
  name: string,
  fault: (message: string, at?: string[]) => void,
): void {
  const list = onlySpelling(place, name, (at, message) => fault(message, at));
  if (list === undefined) return;
  if (!Array.isArray(list) || !list.every(isObject) || list.length > elementsMax) {
    fault(`Must be a list of ${elementsMax} objects at most`, [name]);
    return;
  }
  if (name === 'rules') return;
  const tags = list.map((one) =>
    onlySpelling(one, 'tag', (at, message) => fault(message, [name, ...at])),
  );
  if (!tags.every((tag) => typeof tag === 'string' && tag !== '')) {
    fault('Must have a tag in every element', [name]);
  }
  if (name === 'inbounds' && tags.some((tag) => /^(in-|api$)/.test(String(tag)))) {
    const message =
      'Must not have tags that begin with in-, or the tag api: these are those of Core';
    fault(message, [name]);
  }
}

export const xraySettingsSchema = z
  .strictObject({
    domainStrategy: word(['AsIs', 'IPIfNonMatch', 'IPOnDemand']).optional(),
    dns: dnsSettings.optional(),
    balancers: z.array(balancer).max(256).optional(),
    observatory: observatory.optional(),
    burstObservatory: burstObservatory.optional(),
    raw: raw.optional(),
  })
  .refine((given) => given.observatory === undefined || given.burstObservatory === undefined, {
    path: ['burstObservatory'],
    message: 'Does not go with observatory: Xray has one of them',
  });

/** A place of the settings that is at fault. */
/** Every place of the settings that Xray 26.7.28 would refuse. */
export function xrayFaults(given: unknown): Fault[] {
  return xraySettingsSchema.safeParse(given).error?.issues ?? [];
}

/**
 * Checks the settings as Xray 26.7.28 would, and returns them unchanged.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function validateXraySettings(given: unknown): XraySettings {
  const found = xrayFaults(given);
  if (found.length === 0) return given as XraySettings;
  throw invalidArgument('settings of Xray', found, 'settings');
}
