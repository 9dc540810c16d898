import { z } from 'zod';
import { hostName, httpPath, port } from './addresses.ts';

const hostAndPort = /^(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})$/;

function isTarget(given: string): boolean {
  if (given === 'serve-ws-none') return true;
  if (given.startsWith('/') || given.startsWith('@')) return /^[/@][!-~]{1,107}$/.test(given);
  const givenPort = Number(hostAndPort.exec(given)?.[1] ?? given);
  return givenPort >= 1 && givenPort <= 65_535;
}

/**
 * Where VLESS and Trojan send a connection that is not theirs:
 * https://xtls.github.io/en/config/features/fallback.html
 */
export const fallbacks = z
  .array(
    z.strictObject({
      /** Only connections with this server name; any without it. */
      name: hostName.optional(),
      alpn: z.enum(['h2', 'http/1.1']).optional(),
      path: httpPath.optional(),
      dest: z.union([
        port,
        z
          .string()
          .refine(isTarget, 'Must be a port, host:port, the path of a unix socket, or @name'),
      ]),
      /** Version of the PROXY header that `dest` gets; none if 0. */
      xver: z.int().min(0).max(2).optional(),
    }),
  )
  .min(1)
  .max(64)
  .superRefine((given, context) => {
    const seen = new Set<string>();
    for (const [index, { name = '', alpn = '', path = '' }] of given.entries()) {
      const match = JSON.stringify([name.toLowerCase(), alpn, path]);
      if (seen.has(match)) {
        const message = 'Matches the same name, alpn and path as an earlier one';
        context.addIssue({ code: 'custom', path: [index], message });
      }
      seen.add(match);
    }
  });
