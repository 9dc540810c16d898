import { z } from 'zod';
import { filePath, hostName } from './addresses.ts';

// TLS: what the node shows, and what client apps expect of it.

export const certificate = {
  certificateFile: filePath,
  keyFile: filePath,
  serverName: hostName.optional(),
};
/** TLS for QUIC, which decides the ALPN itself. */
export const certificateOnly = z.strictObject(certificate);

/** ALPN that an inbound offers. */
export const alpnOfInbound = z
  .array(z.enum(['h2', 'http/1.1']))
  .min(1)
  .max(2);

/** Browsers that Xray, sing-box and mihomo know. */
export const browsers = [
  'chrome',
  'firefox',
  'safari',
  'ios',
  'android',
  'edge',
  '360',
  'qq',
  'random',
  'randomized',
] as const;

/** What a client app says it is in the TLS handshake. */
export const fingerprint = z.enum(browsers);

/** SHA-256 of a certificate that clients accept in place of one from an authority. */
export const pins = z
  .array(
    z
      .string()
      .transform((given) => given.replaceAll(':', '').toLowerCase())
      .pipe(z.string().regex(/^[0-9a-f]{64}$/, 'Must be a SHA-256 in 64 hex digits')),
  )
  .min(1)
  .max(8);
