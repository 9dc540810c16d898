/** Prefix of BullMQ's keys. The hash tag keeps them on one node of a Redis Cluster. */
export function bullPrefix(prefix: string): string {
  return `{${prefix}}:bull`;
}
