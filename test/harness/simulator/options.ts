/** The options of `npm run fleet`. */
export interface FleetOptions {
  url: string;
  nodes: number;
  users: number;
  /** How many nodes carry the traffic of one subscription. */
  nodesPerUser: number;
  seconds: number;
  seed: number;
  heartbeatEveryMs: number;
  usageEveryMs: number;
  outboundEveryMs: number;
  sessionEveryMs: number;
  /** Milliseconds between changes of what some node should run; 0 for none. */
  changeEveryMs: number;
  /** Entries in each usage post; undefined for one entry a user who is active at the time. */
  entries: number | undefined;
  /** Share of posts sent twice on purpose. */
  duplicates: number;
  /** Share of posts with a first attempt that is cut off after sending. */
  cuts: number;
  timeoutMs: number;
  /** How long agents repeat unanswered posts after the run. */
  drainSeconds: number;
  /** How long Core may take to settle everything that it acked. */
  settleSeconds: number;
  json: boolean;
}
