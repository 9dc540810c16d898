import { z } from 'zod';
import { filePath } from './addresses.ts';

// What Hysteria2 has beside TLS. Field names of Core; src/render/stream-settings.ts has those of Xray.

/** The web site that somebody without credentials sees at a Hysteria2 server. */
export const masquerade = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('proxy'),
    url: z.url({ protocol: /^https?$/ }).max(2_048),
    rewriteHost: z.boolean().default(true),
  }),
  z.strictObject({ type: z.literal('file'), dir: filePath }),
  z.strictObject({
    type: z.literal('string'),
    content: z.string().max(65_536),
    statusCode: z.int().min(100).max(599).default(200),
  }),
]);

/** Makes the packets look like noise. Client apps need the same password. */
export const obfs = z.strictObject({
  type: z.literal('salamander'),
  password: z
    .string()
    .min(4, 'Must have 4 characters at least')
    .max(255)
    .regex(/^[!-~]+$/, 'Must hold printable ASCII only'),
});

const bandwidth = z
  .string()
  .regex(/^\d{1,6} (kbps|mbps|gbps)$/, 'Must be like 100 mbps')
  .refine((given) => bytesPerSecond(given) >= bytesPerSecondMin, 'Must be 525 kbps at least');

/** Xray refuses less than 65,536 bytes a second. It takes a kilobit for 1,024 bits. */
const bytesPerSecondMin = 65_536;
const bitsOf: Readonly<Record<string, number>> = {
  kbps: 1_024,
  mbps: 1_024 ** 2,
  gbps: 1_024 ** 3,
};

function bytesPerSecond(given: string): number {
  const [count, unit = ''] = given.split(' ');
  return (Number(count) * (bitsOf[unit] ?? 0)) / 8;
}

/** How fast the server sends, and takes in: by a congestion control, or at a fixed rate (`brutal`). */
export const congestion = z
  .strictObject({
    control: z.enum(['bbr', 'reno', 'brutal', 'force-brutal']).default('bbr'),
    up: bandwidth.optional(),
    down: bandwidth.optional(),
  })
  .refine(({ control, up }) => control !== 'force-brutal' || up !== undefined, {
    message: 'Is needed with control force-brutal',
    path: ['up'],
  });
