import type { Link } from './account.ts';
import type { RunningProxy } from './proxy.ts';
import type { XrayApi } from './xray-api.ts';
import type { XrayConfig } from './xray-config.ts';

/** The proxy that runs now. */
export interface Running {
  proxy: RunningProxy;
  api: XrayApi;
  apiPort: number;
  /** What it runs now, which the API may have changed since it started. */
  xray: XrayConfig;
  revision: number;
  /** By UUID: every link that the process has had. Counters of removed links go on. */
  links: Map<string, Link>;
  /** Removed links that a rule of the process blocks. */
  blocked: Set<string>;
  /** Links that Xray has listed as online. Others that move come from loopback, where it lists nobody. */
  listed: Set<string>;
  /** Bytes of a blocked link when its sessions were ended. More of them mean that one goes on. */
  endedAtBytes: Map<string, number>;
}
