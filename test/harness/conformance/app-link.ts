/** A share link that a client app is to use, and the SOCKS port by which traffic takes it. */
export interface AppLink {
  /** Names the link within one client's process. */
  tag: string;
  uri: string;
  socksPort: number;
}
