// The UUID of a link: traffic is counted by it, and it is no secret. It is made of the ids of the subscription
// and the protocol, so that nobody has to store it. It is a UUID of version 8, whose bits are the maker's own:
// 12 and 3 hex digits of the subscription around the version, and 15 of the protocol behind the variant.

const idDigits = 15;
const pattern = /^([0-9a-f]{8})-([0-9a-f]{4})-8([0-9a-f]{3})-8([0-9a-f]{3})-([0-9a-f]{12})$/;

/** The UUID of a link in lower case. */
export function linkUuid(subscriptionId: number, nodeProtocolId: number): string {
  const subscription = digitsOf(subscriptionId);
  const protocol = digitsOf(nodeProtocolId);
  const high = `${subscription.slice(0, 8)}-${subscription.slice(8, 12)}-8${subscription.slice(12)}`;
  return `${high}-8${protocol.slice(0, 3)}-${protocol.slice(3)}`;
}

/** The ids that a UUID of a link is made of. Undefined for another UUID. */
export function parseLinkUuid(
  uuid: string,
): { subscriptionId: number; nodeProtocolId: number } | undefined {
  const parts = pattern.exec(uuid);
  if (parts === null) return undefined;
  const [high = '', middle = '', low = '', first = '', rest = ''] = parts.slice(1);
  const subscriptionId = Number.parseInt(`${high}${middle}${low}`, 16);
  const nodeProtocolId = Number.parseInt(`${first}${rest}`, 16);
  const areIds = Number.isSafeInteger(subscriptionId) && Number.isSafeInteger(nodeProtocolId);
  return areIds ? { subscriptionId, nodeProtocolId } : undefined;
}

function digitsOf(id: number): string {
  return id.toString(16).padStart(idDigits, '0');
}

/** The 16 bytes of the same UUID in SQL, from the SQL of both ids. */
export function linkUuidBytesSql(subscriptionId: string, nodeProtocolId: string): string {
  const smallest = '(-9223372036854775808)';
  return `int8send(((${subscriptionId} >> 12) << 16) | 32768 | (${subscriptionId} & 4095))
    || int8send(${nodeProtocolId} | ${smallest})`;
}
