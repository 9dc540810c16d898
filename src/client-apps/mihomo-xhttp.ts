// XHTTP's `extra` in mihomo's words. Only what was seen to work with Xray is written: a connection with more is
// left out, because an entry that cannot connect is worse than none.

type Fields = Readonly<Record<string, unknown>>;

const namesOfReuse: Readonly<Record<string, string>> = {
  maxConcurrency: 'max-concurrency',
  maxConnections: 'max-connections',
  cMaxReuseTimes: 'c-max-reuse-times',
  hMaxRequestTimes: 'h-max-request-times',
  hMaxReusableSecs: 'h-max-reusable-secs',
  hKeepAlivePeriod: 'h-keep-alive-period',
};

/** Why mihomo gets no such connection. Undefined if it does. */
export function whyNoExtra(extra: Fields | undefined): string | undefined {
  const other = Object.keys(extra ?? {}).find((name) => name !== 'xmux');
  return other === undefined ? undefined : `mihomo has no XHTTP ${other} that is known to work`;
}

/** Fields of `xhttp-opts` for an `extra` that `whyNoExtra` has nothing against. */
export function extraFields(extra: Fields | undefined): object {
  const xmux = extra?.['xmux'];
  if (xmux === undefined) return {};
  const fields = Object.entries(xmux as Fields).map(([name, value]) => [
    namesOfReuse[name] ?? name,
    // mihomo reads ranges as texts, even those of one number.
    typeof value === 'number' && name !== 'hKeepAlivePeriod' ? String(value) : value,
  ]);
  return { 'reuse-settings': Object.fromEntries(fields) };
}
