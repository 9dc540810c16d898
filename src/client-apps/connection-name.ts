/**
 * What client apps call a connection: the node, and what tells its protocols apart. Two protocols of a
 * node differ in their names, or without those in kind or port.
 */
export function connectionName(of: {
  nodeName: string;
  protocol: string;
  port: number;
  /** The protocol's own name on the node, if it has one. */
  protocolName?: string | null | undefined;
}): string {
  return `${of.nodeName} ${of.protocolName ?? `${of.protocol} ${of.port}`}`;
}
