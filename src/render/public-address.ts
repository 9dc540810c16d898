/** In SQL, of `nodes n`: the host that an operator set, else the one that the node reported. */
export const hostSql = "coalesce(nullif(n.host, ''), n.reported_host)";

/**
 * Where clients reach a protocol: what its settings say, else the node's host name, else its
 * address. The host is empty where the node has neither yet.
 */
export function publicAddress(
  node: { host: string; ip: string },
  port: number,
  settings: { publicHost?: string | undefined; publicPort?: number | undefined },
): { host: string; port: number } {
  return {
    host: settings.publicHost ?? (node.host === '' ? node.ip : node.host),
    port: settings.publicPort ?? port,
  };
}
