import { z } from 'zod';
import { sessionEventTypes, vpnProtocols } from './enums.ts';
import { hostOrNone, ipOrNone, line } from './fields.ts';
import { limits } from './limits.ts';

/** Byte counts: integers from 0 to 2^53-1. */
const byteCount = z.int().min(0);
/** Ids: positive integers. */
const id = z.int().min(1);
/** Text that Postgres stores. Postgres cannot store U+0000, so it is refused here. */
const text = (charsMax: number) =>
  z
    .string()
    .max(charsMax)
    .refine((given) => !given.includes('\u0000'), { message: 'Must not contain U+0000' });

/** What a node calls itself. */
const name = line.max(limits.nameCharsMax);

/** The version of a program on the node, as the program prints it. */
const version = line.max(limits.versionCharsMax);

/**
 * Accepts any case and returns upper case. It changes only ASCII letters. toUpperCase alone turns a sharp s
 * into SS and a dotless i into I, so an undefined name could pass as a defined one.
 */
const anyCase = <const T extends readonly [string, ...string[]]>(values: T) =>
  z
    .string()
    .transform((given) => given.replaceAll(/[a-z]+/g, (letters) => letters.toUpperCase()))
    .pipe(z.enum(values));

/** ISO 8601 with `Z` or an offset, as milliseconds since the epoch. `nowMs` bounds the future. */
const timestamp = (nowMs: () => number) =>
  z.iso.datetime({ offset: true }).transform((given, context) => {
    const atMs = Date.parse(given);
    if (Number.isNaN(atMs)) {
      context.addIssue({ code: 'custom', message: 'Invalid ISO datetime' });
    } else if (atMs < limits.earliestMs) {
      context.addIssue({ code: 'custom', message: 'Too old: before 2020-01-01T00:00:00Z' });
    } else if (atMs > nowMs() + limits.aheadMsMax) {
      context.addIssue({ code: 'custom', message: 'More than a day in the future' });
    }
    return atMs;
  });

export const registerNodeSchema = z.object({
  code: text(limits.nameCharsMax).refine((given) => given !== '', { message: 'Must not be empty' }),
  name,
  host: hostOrNone,
  ip: ipOrNone,
  region: name,
});
export type RegisterNodeDto = z.output<typeof registerNodeSchema>;

export const nodeHeartbeatSchema = z.object({
  ip: ipOrNone.transform((given) => (given === '' ? undefined : given)).optional(),
  revision: z.int().min(0).optional(),
  versions: z
    .object({
      agent: version.optional(),
      xray: version.optional(),
      telemt: version.optional(),
    })
    .optional(),
  load: z
    .object({
      cpuPercent: z.number().min(0).optional(),
      memoryBytes: byteCount.optional(),
      uptimeSeconds: z
        .number()
        .min(0)
        .max(Number.MAX_SAFE_INTEGER)
        .transform((given) => Math.floor(given))
        .optional(),
    })
    .optional(),
});

export const nodeConfigAppliedSchema = z.object({ revision: z.int().min(0) });

/** Core keeps whatever a node says about an error, within bounds (nodes/kept-details.ts). */
export const nodeErrorSchema = z.object({
  message: z.string().max(limits.errorMessageCharsMax),
  code: z.string().max(limits.errorCodeCharsMax).optional(),
  // Not z.record, which would check each name.
  details: z
    .custom<Record<string, unknown>>(
      (given) => typeof given === 'object' && given !== null && !Array.isArray(given),
      { error: 'Invalid input: expected an object' },
    )
    .optional(),
});
export type NodeErrorDto = z.output<typeof nodeErrorSchema>;

/** The bodies of the three kinds of posts. `nowMs` is a parameter so that a test can move the clock. */
export function ingestSchemas(options: { entriesMax: number; nowMs: () => number }) {
  const at = timestamp(options.nowMs);
  const usageEntry = z.object({
    userId: id,
    subscriptionId: id.nullish(),
    nodeProtocolId: id,
    bytesUp: byteCount,
    bytesDown: byteCount,
    recordedAt: at,
  });
  const outboundItem = z.object({
    tag: text(limits.outboundTagCharsMax).refine((given) => given !== '', {
      message: 'Must not be empty',
    }),
    bytesUp: byteCount,
    bytesDown: byteCount,
  });
  const sessionEvent = z.object({
    userId: id,
    protocol: anyCase(vpnProtocols),
    eventType: anyCase(sessionEventTypes),
    occurredAt: at,
    ipAddress: text(limits.sessionIpCharsMax).optional(),
  });
  const { entriesMax } = options;
  return {
    usage: z.object({ entries: boundedList(usageEntry, entriesMax) }),
    outbound: z.object({ items: boundedList(outboundItem, entriesMax) }),
    session: z.object({ events: boundedList(sessionEvent, entriesMax) }),
  };
}

/** Entries per slice. The check counts its faults after each slice; most bodies are one slice. */
const sliceEntries = 128;

/**
 * An array of up to `entriesMax` entries. The check stops after the slice that reaches
 * `limits.issuesMax` faults. zod's own array checks every entry and keeps every fault: 10,000 empty
 * objects, which are 85 bytes of gzip, would be 50,000 faults.
 */
function boundedList<S extends z.ZodType>(entry: S, entriesMax: number) {
  const slice = z.array(entry);
  const list = z.array(z.unknown()).max(entriesMax);
  const unchecked = z.unknown() as z.ZodType<unknown, z.input<S>[]>;
  return unchecked.transform((given, context): z.output<S>[] => {
    if (!Array.isArray(given) || given.length > entriesMax) {
      context.issues.push(...(list.safeParse(given).error?.issues.map(asRaw) ?? []));
      return z.NEVER;
    }
    const taken: z.output<S>[] = [];
    for (let at = 0; at < given.length; at += sliceEntries) {
      const part: unknown[] =
        given.length <= sliceEntries ? given : given.slice(at, at + sliceEntries);
      const checked = slice.safeParse(part);
      if (!checked.success) {
        context.issues.push(...checked.error.issues.map((issue) => shifted(issue, at)));
        if (context.issues.length >= limits.issuesMax) break;
      } else if (part === given) return checked.data;
      else for (const one of checked.data) taken.push(one);
    }
    return taken;
  });
}

function asRaw({ message, path }: z.core.$ZodIssue): z.core.$ZodRawIssue {
  return { code: 'custom', message, path: [...path], input: undefined };
}

/** Moves a fault's place from the slice to the whole list. */
function shifted(issue: z.core.$ZodIssue, by: number): z.core.$ZodRawIssue {
  const [index, ...rest] = issue.path;
  return { ...asRaw(issue), path: [Number(index) + by, ...rest] };
}
export type IngestSchemas = ReturnType<typeof ingestSchemas>;
export type UsageEntry = z.output<IngestSchemas['usage']>['entries'][number];
export type OutboundItem = z.output<IngestSchemas['outbound']>['items'][number];
export type SessionEvent = z.output<IngestSchemas['session']>['events'][number];
