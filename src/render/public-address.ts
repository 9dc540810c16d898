/** In SQL, from `nodes n`: the host that an operator set, else the one that the node reported. */
export const hostSql = "coalesce(nullif(n.host, ''), n.reported_host)";

/**
 * Where clients reach a protocol: at the public host of its settings, else at the node's host name, else
 * at its address. The host is empty if there is none of these yet.
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
