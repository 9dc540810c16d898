/** Offsets in a packed usage row, in bytes; the same as `usageRow` in src/rows/pack.ts. */
export const NODE_PROTOCOL_ID: usize = 4;
export const USER_ID: usize = 12;
export const SUBSCRIPTION_ID: usize = 20;
export const BYTES_UP: usize = 28;
export const BYTES_DOWN: usize = 36;
export const RECORDED_AT: usize = 44;
export const SEGMENT: usize = 48;
export const ROW_BYTES: usize = 56;
