// XHTTP's `extra` in mihomo's words. Only what was seen to work with Xray is written: a connection with more is
// left out, because an entry that cannot connect is worse than none.

type Fields = Readonly<Record<string, unknown>>;

const names: Readonly<Record<string, string>> = {
  headers: 'headers',
  noGRPCHeader: 'no-grpc-header',
  xPaddingBytes: 'x-padding-bytes',
  xPaddingObfsMode: 'x-padding-obfs-mode',
  xPaddingKey: 'x-padding-key',
  xPaddingHeader: 'x-padding-header',
  xPaddingPlacement: 'x-padding-placement',
  xPaddingMethod: 'x-padding-method',
  uplinkHTTPMethod: 'uplink-http-method',
  sessionIDPlacement: 'session-placement',
  sessionIDKey: 'session-key',
  seqPlacement: 'seq-placement',
  seqKey: 'seq-key',
  uplinkDataPlacement: 'uplink-data-placement',
  uplinkDataKey: 'uplink-data-key',
  uplinkChunkSize: 'uplink-chunk-size',
  scMaxEachPostBytes: 'sc-max-each-post-bytes',
  scMinPostsIntervalMs: 'sc-min-posts-interval-ms',
  xmux: 'reuse-settings',
};

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
  const other = Object.keys(extra ?? {}).find((name) => !(name in names));
  return other === undefined ? undefined : `mihomo has no XHTTP ${other} that is known to work`;
}

/** Fields of `xhttp-opts` for an `extra` that `whyNoExtra` has nothing against. */
export function extraFields(extra: Fields | undefined): object {
  return translated(extra ?? {}, names);
}

function translated(given: Fields, by: Readonly<Record<string, string>>): object {
  const fields = Object.entries(given).map(([name, value]) => [
    by[name] ?? name,
    textOf(name, value),
  ]);
  return Object.fromEntries(fields);
}

function textOf(name: string, value: unknown): unknown {
  if (name === 'xmux') return translated(value as Fields, namesOfReuse);
  // mihomo reads ranges as texts, even those of one number.
  return typeof value === 'number' && name !== 'hKeepAlivePeriod' ? String(value) : value;
}
