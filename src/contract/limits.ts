/** Bounds of the wire that are not settings. */
export const limits = {
  /** Characters in the code, the name and the region of a registration. */
  nameCharsMax: 255,
  outboundTagCharsMax: 255,
  sessionIpCharsMax: 64,
  errorMessageCharsMax: 4_096,
  errorCodeCharsMax: 255,
  /** Kept of the details of an error: bytes as JSON, levels, and members of each object or array. */
  errorDetailsKeptBytesMax: 16_384,
  errorDetailsKeptLevelsMax: 32,
  errorDetailsKeptMembersMax: 256,
  idempotencyKeyCharsMax: 200,
  /**
   * JSON values in an ingest body of over 64 KiB, for each entry that it may have. An entry needs a quarter
   * of that, so there is room for unknown fields.
   */
  valuesPerEntryMax: 25,
  /** How many places a failed validation lists. */
  issuesMax: 20,
  /** Usage and sessions older than this are refused: 2020-01-01T00:00:00Z. */
  earliestMs: 1_577_836_800_000,
  /** How far ahead of Core's clock a node's clock may be. */
  aheadMsMax: 86_400_000,
} as const;
