import { invalidArgument } from '../errors.ts';
import { ruleSchema } from '../protocols/routing/rule.ts';

export type RoutingRule = Record<string, unknown>;

/**
 * Checks a rule and returns it unchanged.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function validateRule(given: unknown): RoutingRule {
  const parsed = ruleSchema.safeParse(given);
  if (parsed.success) return given as RoutingRule;
  throw invalidArgument('routing rule', parsed.error.issues, 'rule');
}
