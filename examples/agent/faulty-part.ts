import type { XrayConfig } from './xray-config.ts';

/**
 * Which part of a configuration Xray complains about, as far as its message tells: it quotes the tag of an
 * inbound or outbound, or names an inbound's port. Empty if nothing of the configuration is in the message.
 */
export function faultyPart(
  message: string,
  { inbounds, outbounds, routing }: XrayConfig,
): { inbound?: string; outbound?: string; rules?: true } {
  const has = (word: string): boolean =>
    message.split(/[^\w.@-]+/).some((part) => part === word || part === `:${word}`);
  const inbound = inbounds.find(({ tag, port }) => has(tag) || has(String(port)));
  if (inbound !== undefined) return { inbound: inbound.tag };
  const outbound = outbounds.find(({ tag }) => has(tag));
  if (outbound !== undefined) return { outbound: outbound.tag };
  return routing.rules.length > 0 && /rout|rule/i.test(message) ? { rules: true } : {};
}
