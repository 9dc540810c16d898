/** A share link that a client app is to use, and the SOCKS port by which traffic takes it. */
export interface AppLink {
  /** Names the link within one client's process. */
  tag: string;
  uri: string;
  socksPort: number;
  /** What the user has set in the app, since no link says it. -1 leaves TCP, or UDP, out of mux. */
  mux?: { concurrency: number; xudpConcurrency: number };
}
