import { CoreError, type Issue, issuePath } from '../errors.ts';
import { ruleSchema } from '../protocols/routing/rule.ts';

export type RoutingRule = Record<string, unknown>;

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
