/** Bounds of the wire that are not settings. */
export const limits = {
  /** For the code, the name and the region of a registration. */
  nameCharsMax: 255,
  outboundTagCharsMax: 255,
  sessionIpCharsMax: 64,
  errorMessageCharsMax: 4_096,
  errorCodeCharsMax: 255,
  /** What Core keeps of an error's details: bytes as JSON, levels, and members of an object or array. */
  errorDetailsKeptBytesMax: 16_384,
  errorDetailsKeptLevelsMax: 32,
  errorDetailsKeptMembersMax: 256,
  /** For each version of a program in a heartbeat. */
  versionCharsMax: 64,
  idempotencyKeyCharsMax: 200,
  /**
   * JSON values per possible entry, in an ingest body of over 64 KiB. An entry needs a quarter of that,
   * so there is room for unknown fields.
   */
  valuesPerEntryMax: 25,
  /** How many faults a failed validation lists. */
  issuesMax: 20,
  /** Usage and sessions older than this are refused: 2020-01-01T00:00:00Z. */
  earliestMs: 1_577_836_800_000,
  /** How far a node's clock may be ahead of Core's. */
  aheadMsMax: 86_400_000,
} as const;
