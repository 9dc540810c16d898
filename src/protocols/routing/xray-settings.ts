import { z } from 'zod';
import { CoreError, type Issue, issuePath } from '../../errors.ts';
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

const listOfObjects = z.array(z.record(z.string(), z.json())).max(1_000);
const taggedList = listOfObjects.refine(
  (given) => given.every((one) => typeof one['tag'] === 'string' && one['tag'] !== ''),
  'Must have a tag in every element',
);
const raw = z
  .looseObject({
    inbounds: taggedList
      .refine((given) => !given.some((one) => /^(in-|api$)/.test(String(one['tag']))), {
        message: 'Must not have tags that begin with in-, or the tag api: these are those of Core',
      })
      .optional(),
    outbounds: taggedList.optional(),
    routing: z
      .looseObject({ rules: listOfObjects.optional(), balancers: taggedList.optional() })
      .optional(),
  })
  .superRefine((given, context) => {
    for (const name of ofCore) {
      if (!(name in given)) continue;
      const message = 'Is of Core, which counts traffic by it';
      context.addIssue({ code: 'custom', path: [name], message });
    }
  });

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

/**
 * Checks the settings as Xray 26.7.28 would, and returns them unchanged.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function validateXraySettings(given: unknown): XraySettings {
  const parsed = xraySettingsSchema.safeParse(given);
  if (parsed.success) return given as XraySettings;
  const issues: Issue[] = parsed.error.issues.map((issue) => ({
    path: issuePath(issue.path, 'settings'),
    message: issue.message,
  }));
  const faults = issues.map((issue) => `${issue.path}: ${issue.message}`).join('; ');
  throw new CoreError('INVALID_ARGUMENT', `Invalid settings of Xray: ${faults}`, { issues });
}
