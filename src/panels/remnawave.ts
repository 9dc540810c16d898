import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { CsvError, parse } from 'csv-parse';
import { z } from 'zod';
import { CoreError } from '../errors.ts';
import type { ResetPeriod } from '../subscriptions/period.ts';
import {
  type AccountLine,
  accessOf,
  type Note,
  type PanelCredential,
  type PanelFile,
} from './account.ts';
import { byteCount, instant, integer, readJson, readRecord, text } from './fields.ts';
import { readElements } from './json.ts';

/**
 * A user of Remnawave, by the names of its API. The columns of its
 * table `users` are the same names in snake case.
 */
const userSchema = z.object({
  username: z.string().min(1),
  status: z
    .string()
    .toUpperCase()
    .pipe(z.enum(['ACTIVE', 'DISABLED', 'LIMITED', 'EXPIRED'])),
  trafficLimitBytes: byteCount,
  trafficLimitStrategy: z
    .enum(['NO_RESET', 'DAY', 'WEEK', 'MONTH', 'MONTH_ROLLING'])
    .default('NO_RESET'),
  expireAt: instant,
  createdAt: instant,
  usedTrafficBytes: byteCount,
  userTraffic: z.object({ usedTrafficBytes: byteCount }).nullish(),
  vlessUuid: text,
  trojanPassword: text,
  ssPassword: text,
  hwidDeviceLimit: integer,
  activeInternalSquads: z.array(z.object({ name: text })).nullish(),
});
type RemnawaveUser = z.infer<typeof userSchema>;

/** Opens JSON of Remnawave's API (`GET /api/users`), or its table `users` as CSV with a header. */
export async function openRemnawave(file: string): Promise<PanelFile> {
  const isJson = /^\s*[[{]/.test(await readStart(file));
  const accounts = () =>
    toLines(
      isJson ? readElements(file, ['$.response.users', '$.users', '$.response']) : readTable(file),
    );
  const warnings = isJson ? [] : await tableWarnings(file);
  return { inbounds: [], warnings, accounts, close: async () => undefined };
}

async function readStart(file: string): Promise<string> {
  const handle = await open(file, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(4_096), 0, 4_096, 0);
    return buffer.toString('utf8', 0, bytesRead).replace(/^\ufeff/, '');
  } finally {
    await handle.close();
  }
}

/** Since 2.3 the traffic is in a table of its own, `user_traffic`. */
async function tableWarnings(file: string): Promise<string[]> {
  const [header = ''] = (await readStart(file)).split('\n');
  if (/\bused_?traffic_?bytes\b/i.test(header)) return [];
  return [
    'the table has no column used_traffic_bytes, so everybody begins at 0: export users JOIN user_traffic USING (id), or use the JSON of the API',
  ];
}

const recordCharsMax = 65_536;

async function* readTable(file: string): AsyncGenerator<unknown> {
  const parser = createReadStream(file).pipe(
    parse({
      bom: true,
      columns: (header: string[]) => header.map(camelCase),
      max_record_size: recordCharsMax,
    }),
  );
  try {
    for await (const record of parser as AsyncIterable<Record<string, string>>) {
      const filled = Object.entries(record).filter(([, value]) => value !== '');
      yield Object.fromEntries(filled);
    }
  } catch (cause) {
    if (!(cause instanceof CsvError)) throw cause;
    throw new CoreError('INVALID_ARGUMENT', `${file}: ${cause.message}`, { cause });
  }
}

function camelCase(name: string): string {
  return name.trim().replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

async function* toLines(users: AsyncIterable<unknown>): AsyncGenerator<AccountLine> {
  let place = 0;
  const nowMs = Date.now();
  for await (const given of users) {
    place += 1;
    const read = readRecord(userSchema, squadsRead(given));
    const name = (given as { username?: unknown } | null)?.username;
    if ('value' in read) yield toLine(place, read.value, nowMs);
    else yield { place, name: typeof name === 'string' ? name : undefined, fault: read.fault };
  }
}

/** In CSV the squads are not there, or JSON in text. */
function squadsRead(given: unknown): unknown {
  const user = given as { activeInternalSquads?: unknown } | null;
  if (typeof user?.activeInternalSquads !== 'string') return given;
  return { ...user, activeInternalSquads: readJson(user.activeInternalSquads) };
}

function toLine(place: number, user: RemnawaveUser, nowMs: number): AccountLine {
  const limitBytes = user.trafficLimitBytes === 0 ? null : user.trafficLimitBytes;
  const usedBytes = user.userTraffic?.usedTrafficBytes ?? user.usedTrafficBytes;
  const expiresAt = user.expireAt;
  const status = user.status.toLowerCase() as Lowercase<RemnawaveUser['status']>;
  const access = accessOf({ status, limitBytes, usedBytes, expiresAt }, nowMs);
  const notes: Note[] = [...access.notes];
  if (user.hwidDeviceLimit > 0)
    notes.push({ note: 'has a limit of devices in the panel: not kept' });
  return {
    place,
    account: {
      name: user.username,
      limitBytes,
      usedBytes,
      expiresAt,
      ...periodOf(user),
      disabled: access.disabled,
      credentials: credentialsOf(user),
      labels: (user.activeInternalSquads ?? []).map((squad) => squad.name),
      notes,
    },
  };
}

/** Days, weeks from Monday and months begin at midnight; a rolling month when the user was created. */
function periodOf(user: RemnawaveUser): { resetPeriod: ResetPeriod; anchorAt?: Date } {
  // The first of May 2000 was a Monday.
  const midnight = new Date(Date.UTC(2000, 4, 1));
  switch (user.trafficLimitStrategy) {
    case 'NO_RESET':
      return { resetPeriod: 'none' };
    case 'DAY':
      return { resetPeriod: 'day', anchorAt: midnight };
    case 'WEEK':
      return { resetPeriod: 'week', anchorAt: midnight };
    case 'MONTH':
      return { resetPeriod: 'month', anchorAt: midnight };
    case 'MONTH_ROLLING':
      return {
        resetPeriod: 'month',
        anchorAt: new Date(Math.floor((user.createdAt ?? midnight).getTime() / dayMs) * dayMs),
      };
  }
}

const dayMs = 86_400_000;

function credentialsOf(user: RemnawaveUser): PanelCredential[] {
  const held: PanelCredential[] = [
    { protocol: 'VLESS', credential: user.vlessUuid },
    { protocol: 'TROJAN', credential: user.trojanPassword },
    { protocol: 'SHADOWSOCKS', credential: user.ssPassword, method: 'chacha20-ietf-poly1305' },
  ];
  return held.filter(({ credential }) => credential !== '');
}
