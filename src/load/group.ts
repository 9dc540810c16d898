import type { Kind } from '../spool/streams.ts';
import type { Segment } from './seal.ts';
import { createGroupSums, type GroupSums } from './settle.ts';

/**
 * Segments of one stream that are inserted and will be settled together, so that a subscription that
 * moves traffic all the time is updated once a group instead of once a segment.
 */
export interface Group {
  stream: string;
  segments: Segment[];
  sums: GroupSums;
  /** On the monotonic clock. */
  openedAtMs: number;
}

/**
 * A group waits this long for each counter that it touches, ten times as long as the update takes. So
 * settling costs at most a tenth of a core a stream, and a group that touches little is settled at
 * once.
 */
const waitMsPerCounter = 0.05;
/** Nor does it wait longer than this, while much is coming in and while it is not. */
const busyMsMax = 10_000;
const drainedMsMax = 1_000;
/** The sums are held in memory: 32 bytes a counter, and as much again while some are added. */
const countersMax = 500_000;

export function openGroup(stream: string, kind: Kind): Group {
  const sums = createGroupSums(kind);
  return { stream, segments: [], sums, openedAtMs: performance.now() };
}

/**
 * How long the group may still gather segments; 0 or less when it is to be settled. Its entries stay
 * in Redis until then, so it also ends before they take `bytesMax` of the backlog.
 */
export function groupDueInMs(
  group: Group,
  at: { drained: boolean; msMin: number; bytesMax: number; nowMs?: number },
): number {
  const { segments, sums } = group;
  const bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
  if (bytes >= at.bytesMax || sums.size >= countersMax) return 0;
  const worthMs = Math.min(sums.size * waitMsPerCounter, at.drained ? drainedMsMax : busyMsMax);
  return group.openedAtMs + Math.max(worthMs, at.msMin) - (at.nowMs ?? performance.now());
}
