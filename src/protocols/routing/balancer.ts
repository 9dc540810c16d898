import { z } from 'zod';
import { integer, tag, word } from './values.ts';

// Balancers and what measures the outbounds for them: https://xtls.github.io/en/config/routing.html and
// /config/observatory.html, infra/conf/router.go of 26.7.28.

const duration = z
  .string()
  .regex(/^(\d{1,9}(\.\d{1,9})?(ns|us|µs|ms|s|m|h))+$/, 'Must be a duration like 10s or 1m30s');
const probe = z.url({ protocol: /^https?$/, error: 'Must be a URL with http or https' }).max(2_048);
const selector = z.array(tag).min(1).max(256);

const leastLoad = z.strictObject({
  expected: integer.optional(),
  maxRTT: duration.optional(),
  tolerance: z.number().min(0).max(1).optional(),
  baselines: z.array(duration).max(64).optional(),
  costs: z
    .array(
      z.strictObject({
        match: tag,
        value: z.number().min(0),
        regexp: z.boolean().optional(),
      }),
    )
    .max(256)
    .optional(),
});

const strategies = ['random', 'roundRobin', 'leastPing', 'leastLoad'] as const;
const strategy = z
  .strictObject({ type: word(strategies), settings: leastLoad.optional() })
  .refine((given) => given.settings === undefined || given.type.toLowerCase() === 'leastload', {
    path: ['settings'],
    message: 'Only go with type leastLoad',
  });

/** Chooses among the outbounds whose tags begin with one of the selectors. */
export const balancer = z.strictObject({
  tag,
  selector,
  strategy: strategy.optional(),
  fallbackTag: tag.optional(),
});

export const observatory = z.strictObject({
  subjectSelector: selector,
  probeURL: probe.optional(),
  probeInterval: duration.optional(),
  enableConcurrency: z.boolean().optional(),
});

export const burstObservatory = z.strictObject({
  subjectSelector: selector,
  pingConfig: z.strictObject({
    destination: probe.optional(),
    connectivity: z.union([z.literal(''), probe]).optional(),
    interval: duration.optional(),
    sampling: integer.optional(),
    timeout: duration.optional(),
    httpMethod: z.enum(['HEAD', 'GET']).optional(),
  }),
});
