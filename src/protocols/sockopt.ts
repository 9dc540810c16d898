import { z } from 'zod';

const secondsMax = 32_767;

/** Options of an inbound's socket, by Xray's names: https://xtls.github.io/en/config/transports/sockopt.html */
export const sockopt = z.strictObject({
  /** The proxy in front sends the client's address in a PROXY header. */
  acceptProxyProtocol: z.boolean().optional(),
  /** Headers that only a trusted proxy sets: with one of them Xray believes X-Forwarded-For. */
  trustedXForwardedFor: z
    .array(z.string().regex(/^[A-Za-z0-9-]{1,64}$/, 'Must be the name of a header'))
    .min(1)
    .max(16)
    .optional(),
  tcpFastOpen: z.union([z.boolean(), z.int().min(0).max(65_535)]).optional(),
  tcpKeepAliveIdle: z.int().min(-1).max(secondsMax).optional(),
  tcpKeepAliveInterval: z.int().min(-1).max(secondsMax).optional(),
  /** In milliseconds. */
  tcpUserTimeout: z.int().min(0).max(3_600_000).optional(),
  tcpCongestion: z
    .string()
    .regex(/^[a-z0-9_-]{1,15}$/, 'Must be the name of a congestion control, like bbr')
    .optional(),
  tcpMaxSeg: z.int().min(0).max(65_535).optional(),
  tcpWindowClamp: z.int().min(0).max(1_073_741_824).optional(),
  tcpMptcp: z.boolean().optional(),
  /** Listens on the addresses of this interface only. */
  interface: z
    .string()
    .regex(/^[\w.-]{1,15}$/, 'Must be the name of an interface')
    .optional(),
  mark: z.int().min(0).max(2_147_483_647).optional(),
});
