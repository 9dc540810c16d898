import { z } from 'zod';
import { line } from '../../contract/fields.ts';
import { addressList, domainList, goRegexp } from './address-list.ts';
import { goRegexpFault } from './go-regexp.ts';
import { headers, integer, networks, ports, tag } from './values.ts';

const text = line.min(1).max(1_024);
const listMax = 10_000;
const protocols = z.array(z.enum(['http', 'tls', 'quic', 'bittorrent'])).min(1);
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** A user of Xray is a link, and its name is the link's UUID in lower case. Any other text matches nobody. */
const user = text.refine((given) => userFault(given) === undefined, {
  error: (issue) => userFault(String(issue.input)) ?? '',
});

function userFault(given: string): string | undefined {
  if (given.startsWith('regexp:')) {
    return given === 'regexp:'
      ? 'Must have an expression after regexp:'
      : goRegexpFault(given.slice(7));
  }
  return uuid.test(given)
    ? undefined
    : 'Must be the UUID of a link in lower case, or regexp: and an expression';
}

/** What selects traffic. Xray refuses a rule without any of these. */
const conditions = {
  domain: domainList.optional(),
  domains: domainList.optional(),
  ip: addressList.optional(),
  port: ports.optional(),
  sourcePort: ports.optional(),
  localPort: ports.optional(),
  network: networks.optional(),
  sourceIP: addressList.optional(),
  source: addressList.optional(),
  localIP: addressList.optional(),
  user: z.array(user).min(1).max(listMax).optional(),
  vlessRoute: ports.optional(),
  inboundTag: z.array(tag).min(1).max(listMax).optional(),
  protocol: protocols.optional(),
  attrs: z.record(line.min(1).max(255), goRegexp).optional(),
  process: z.array(text).min(1).max(listMax).optional(),
};

/** Xray tells this URL of each connection that the rule matches. */
const webhook = z.strictObject({
  url: z.url({ protocol: /^https?$/, error: 'Must be a URL with http or https' }).max(2_048),
  deduplication: integer.optional(),
  headers: headers.optional(),
});

/** Xray's RuleObject: https://xtls.github.io/en/config/routing.html, infra/conf/router.go of 26.7.28. */
export const ruleSchema = z
  .strictObject({
    type: z.literal('field').optional(),
    ruleTag: text.optional(),
    outboundTag: tag.optional(),
    balancerTag: tag.optional(),
    webhook: webhook.optional(),
    ...conditions,
  })
  .refine((rule) => Object.keys(conditions).some((name) => name in rule), {
    message: `Needs a condition: one of ${Object.keys(conditions).join(', ')}`,
  })
  .refine((rule) => (rule.outboundTag === undefined) !== (rule.balancerTag === undefined), {
    message: 'Needs either outboundTag or balancerTag',
  })
  .refine((rule) => rule.domain === undefined || rule.domains === undefined, {
    path: ['domains'],
    message: 'Does not go with domain, of which it is an older name',
  })
  .refine((rule) => rule.sourceIP === undefined || rule.source === undefined, {
    path: ['source'],
    message: 'Does not go with sourceIP, of which it is an older name',
  });
