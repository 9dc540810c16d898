/**
 * In SQL, from `nodes n`: the host that an operator set, or the reported one if the operator set
 * none.
 */
export const hostSql = "coalesce(nullif(n.host, ''), n.reported_host)";

/**
 * Where clients reach a protocol. The host is the first of these that exists: the public host of its
 * settings, the node's host name, the node's address. It is empty if there is none yet.
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
