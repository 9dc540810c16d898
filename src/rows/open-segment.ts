import type { BufferPool } from '../buffer-pool.ts';
import type { SegmentRows } from './segment-rows.ts';
import { openSessionRows } from './session-rows.ts';
import { openUsageRows } from './usage-rows.ts';

/**
 * The rows of a segment, whose `block` holds them as the spool does.
 * @throws CoreError SEGMENT_ROWS_LOST if the block does not hold the usage rows that were sealed.
 */
export function openSegment(
  segment: { id: number; rows: number },
  kind: 'usage' | 'session',
  block: Buffer,
  buffers: BufferPool,
): SegmentRows {
  if (kind === 'session') return openSessionRows(block, segment.id);
  const { rows, id: segmentId } = segment;
  return openUsageRows({ block, rows, segmentId }, buffers.take);
}
