import { randomBytes } from 'node:crypto';
import { chmodSync, lstatSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import type { Config } from './config.ts';
import { writeDurable } from './durable-file.ts';
import { CoreError } from './errors.ts';

/** The passwords of the embedded servers, each 32 random bytes in base64url. */
export interface Secrets {
  /** For the superuser, who sets the database up and does nothing else. */
  postgresSuperuser: string;
  /** For Core's own role, which owns its database. */
  postgres: string;
  redis: string;
  /** For Core's own user. */
  clickhouse: string;
  /** For the user of tools, who only reads. */
  clickhouseAnalyst: string;
}

const names = [
  'postgresSuperuser',
  'postgres',
  'redis',
  'clickhouse',
  'clickhouseAnalyst',
] as const satisfies readonly (keyof Secrets)[];

const storedSchema = z.partialRecord(z.enum(names), z.string().regex(/^[\w-]{43,}$/));

/** The file with the secrets of a data directory. Only the user who runs Core can read it. */
export function secretsFile(dataDir: string): string {
  return path.join(dataDir, 'secrets.json');
}

/**
 * Reads the secrets of a data directory and makes those that the file lacks: all of them at the first start,
 * or one that only a newer Core needs. Only for a process that has claimed the data directory.
 * @throws CoreError SECRETS_UNUSABLE if the file cannot be read, written or understood.
 */
export function makeSecrets(dataDir: string): Secrets {
  const stored = readStored(dataDir) ?? {};
  const secrets: Partial<Secrets> = {};
  for (const name of names) secrets[name] = stored[name] ?? randomBytes(32).toString('base64url');
  if (names.some((name) => stored[name] === undefined)) {
    try {
      writeDurable(secretsFile(dataDir), `${JSON.stringify(secrets, null, 2)}\n`);
    } catch (cause) {
      throw unusable(dataDir, 'cannot be written', cause);
    }
  }
  return secrets as Secrets;
}

/**
 * The secrets of a data directory; undefined if Core was never started on it.
 * @throws CoreError SECRETS_UNUSABLE if the file is there and cannot be read or understood.
 */
export function readSecrets(dataDir: string): Secrets | undefined {
  const stored = readStored(dataDir);
  if (stored === undefined) return undefined;
  const missing = names.filter((name) => stored[name] === undefined);
  if (missing.length === 0) return stored as Secrets;
  throw unusable(dataDir, `lacks ${missing.join(', ')}; the next start of core up adds it`);
}

/** The settings with the passwords of the embedded servers in their URLs. */
export function withSecrets(config: Config, secrets: Secrets | undefined): Config {
  if (secrets === undefined) return config;
  const { embedded, stores } = config;
  return {
    ...config,
    stores: {
      ...stores,
      ...(embedded.postgres
        ? { postgresUrl: withPassword(stores.postgresUrl, secrets.postgres) }
        : {}),
      ...(embedded.redis ? { redisUrl: withPassword(stores.redisUrl, secrets.redis) } : {}),
      ...(embedded.clickhouse
        ? { clickhouseUrl: withPassword(stores.clickhouseUrl, secrets.clickhouse) }
        : {}),
    },
  };
}

/**
 * The URL for tools that read from the embedded ClickHouse, with the user that only reads. Undefined for an
 * external ClickHouse, because Core does not know its users.
 */
export function analystUrl(config: Config, secrets: Secrets | undefined): string | undefined {
  if (!config.embedded.clickhouse) return undefined;
  const url = new URL(config.stores.clickhouseUrl);
  url.username = 'analyst';
  return withPassword(url.href, secrets?.clickhouseAnalyst ?? '');
}

/** The settings with the passwords that are stored, for every process but the one that starts the servers. */
export function withStoredSecrets(config: Config): Config {
  const { dataDir, postgres, redis, clickhouse } = config.embedded;
  if (!postgres && !redis && !clickhouse) return config;
  return withSecrets(config, readSecrets(dataDir));
}

export function withPassword(url: string, password: string): string {
  const parsed = new URL(url);
  parsed.password = password;
  return parsed.href;
}

function readStored(dataDir: string): z.output<typeof storedSchema> | undefined {
  const file = secretsFile(dataDir);
  let text: string;
  try {
    requireOwn(dataDir);
    text = readFileSync(file, 'utf8');
    closeToOthers(file);
  } catch (cause) {
    if (cause instanceof CoreError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw unusable(dataDir, `cannot be read (${code}); run this as the user that runs Core`, cause);
  }
  try {
    return storedSchema.parse(JSON.parse(withoutLastComma(text)));
  } catch (cause) {
    const remedy =
      'repair it, or restore it from a backup; if you remove it, the next start of core up makes new passwords';
    throw unusable(dataDir, `is damaged; ${remedy}`, withoutText(cause));
  }
}

/** An operator who removes the last line, to get a new password, leaves the comma of the line before. */
function withoutLastComma(text: string): string {
  return text.replace(/,(?=\s*\}\s*$)/, '');
}

/**
 * The owner of the file knows the passwords in it. It must be this process' user, or the owner of the folder
 * if root runs a command.
 */
function requireOwn(dataDir: string): void {
  const { uid } = lstatSync(secretsFile(dataDir));
  if (uid === process.getuid?.() || uid === statSync(dataDir).uid) return;
  throw unusable(dataDir, `belongs to another user (${uid}), who knows what is in it; remove it`);
}

/** Copying the directory may have made the file readable for others. */
function closeToOthers(file: string): void {
  if ((statSync(file).mode & 0o077) !== 0) chmodSync(file, 0o600);
}

/** JSON.parse and zod may quote the text, and a log must not hold it. */
function withoutText(cause: unknown): Error {
  return new Error(cause instanceof z.ZodError ? 'not the shape of the file' : 'not JSON');
}

function unusable(dataDir: string, why: string, cause?: unknown): CoreError {
  return new CoreError(
    'SECRETS_UNUSABLE',
    `The file of secrets ${secretsFile(dataDir)} ${why}`,
    cause === undefined ? {} : { cause },
  );
}
