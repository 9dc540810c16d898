import { z } from 'zod';
import { line } from '../contract/fields.ts';
import { CoreError, type Issue, issuePath } from '../errors.ts';

const text = line.min(1).max(1_024);
const texts = z.array(text).min(1).max(10_000);
const portList = z
  .string()
  .regex(/^\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*$/, 'Must be ports, like 53,443,1000-2000')
  .refine(
    (list) => list.split(/[,-]/).every((port) => Number(port) <= 65_535),
    'Must name ports up to 65535',
  );
const ports = z.union([z.int().min(0).max(65_535), portList]);
const protocols = z.array(z.enum(['http', 'tls', 'quic', 'bittorrent'])).min(1);

/** What selects traffic. Xray refuses a rule without any of these. */
const conditions = {
  domain: texts.optional(),
  ip: texts.optional(),
  port: ports.optional(),
  sourcePort: ports.optional(),
  localPort: ports.optional(),
  network: z.enum(['tcp', 'udp', 'tcp,udp', 'udp,tcp']).optional(),
  sourceIP: texts.optional(),
  source: texts.optional(),
  localIP: texts.optional(),
  user: texts.optional(),
  vlessRoute: ports.optional(),
  inboundTag: texts.optional(),
  protocol: protocols.optional(),
  attrs: z.record(line.max(255), line.max(1_024)).optional(),
  process: texts.optional(),
};

/**
 * Xray's RuleObject, https://xtls.github.io/en/config/routing.html, without `balancerTag`: Core renders
 * no balancers, and Xray does not start if a rule names one that is missing.
 */
export const ruleSchema = z
  .strictObject({
    type: z.literal('field').optional(),
    ruleTag: text.optional(),
    outboundTag: text,
    ...conditions,
  })
  .refine((rule) => Object.keys(conditions).some((name) => name in rule), {
    message: `Needs a condition: one of ${Object.keys(conditions).join(', ')}`,
  });

type RoutingRule = Record<string, unknown> & { outboundTag: string };

/**
 * Checks a rule and returns it unchanged.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function validateRule(given: unknown): RoutingRule {
  const parsed = ruleSchema.safeParse(given);
  if (parsed.success) return given as RoutingRule;
  const issues: Issue[] = parsed.error.issues.map((issue) => ({
    path: issuePath(issue.path, 'rule'),
    message: issue.message,
  }));
  const faults = issues.map((issue) => `${issue.path}: ${issue.message}`).join('; ');
  throw new CoreError('INVALID_ARGUMENT', `Invalid routing rule: ${faults}`, { issues });
}
