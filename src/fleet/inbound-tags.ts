import type pg from 'pg';

// The tag of an inbound is `in-` and the id of its protocol. Ids differ between two installations of Core,
// so a fleet file names an inbound by the name of its protocol. Core stores the tag.

type Rule = Record<string, unknown>;

/** A rule with other names of inbounds. A value that is no list of texts stays for the check of the rule. */
export function withInboundTags(rule: Rule, rename: (tag: string) => string): Rule {
  const tags = rule['inboundTag'];
  if (!Array.isArray(tags)) return rule;
  return {
    ...rule,
    inboundTag: tags.map((tag: unknown) => (typeof tag === 'string' ? rename(tag) : tag)),
  };
}

/** The inbounds that a rule names. */
export function inboundTagsOf(rule: Rule): string[] {
  const tags = rule['inboundTag'];
  return Array.isArray(tags) ? tags.filter((tag) => typeof tag === 'string') : [];
}

/** Puts the name of the protocol in the place of each tag. A tag of no protocol of the node stays. */
export function toNames(
  rule: Rule,
  protocols: readonly { nodeProtocolId: number; name: string }[],
): Rule {
  const names = new Map(protocols.map((one) => [`in-${one.nodeProtocolId}`, one.name]));
  return withInboundTags(rule, (tag) => names.get(tag) ?? tag);
}

/** Puts the tag in the place of each name of a protocol that the node has now. */
export async function toTags(
  client: pg.PoolClient,
  nodeId: number,
  rules: readonly Rule[],
): Promise<Rule[]> {
  const { rows } = await client.query<{ id: number; name: string }>(
    'SELECT id, name FROM node_protocols WHERE node_id = $1',
    [nodeId],
  );
  const tags = new Map(rows.map(({ id, name }) => [name, `in-${id}`]));
  return rules.map((rule) => withInboundTags(rule, (tag) => tags.get(tag) ?? tag));
}
