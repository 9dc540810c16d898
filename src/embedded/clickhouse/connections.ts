import chdb, { type ChdbResult, type Session } from 'chdb';
import { sqlName, sqlString } from '../../clickhouse-sql.ts';
import type { Account, Role } from './access.ts';
import { clickhouseFault } from './fault.ts';

/** What a query runs under. request.ts has checked the names. */
export interface Scope {
  /** Its bounds apply. */
  account: Account;
  database: string;
  settings: ReadonlyMap<string, string>;
  /** Values of `{name:Type}` placeholders, escaped as they come over HTTP. */
  params: ReadonlyMap<string, string>;
  /** True for GET and for the analyst: guard and engine then refuse every statement that writes. */
  readonly: boolean;
}

/** Runs one statement in a scope. */
export type Query = (sql: string, format?: string) => Promise<ChdbResult>;

/**
 * Connections to the one engine of this process. A setting, parameter or database that is set on a
 * connection stays on it. So each scope gets a connection to itself: a new one, or one that was last used
 * with exactly the same names. The front sets all of these again. Nothing of a request is left for the next
 * one, not even after an error.
 */
export interface Connections {
  /**
   * Runs `work` in a scope. `reuse` says that `work` changes nothing on its connection.
   * @throws the engine's error for an unknown database or setting.
   */
  within<T>(scope: Scope, reuse: boolean, work: (query: Query) => Promise<T>): Promise<T>;
  /** Runs a statement that the front itself wrote. */
  own: Query;
  /**
   * A statement in the engine's own words: on one line, without comments, each name and string quoted in
   * one way.
   * @throws the engine's error 62 for anything but one statement.
   */
  wording(sql: string): Promise<string>;
  /** Closes everything. Nothing may be running. */
  close(): Promise<void>;
}

const idleMax = 16;

/** Core asks the same few queries again and again, with other parameters. */
const wordingsMax = 256;
const wordingCharsMax = 8_192;

/**
 * chdb would take `1` for `SELECT 1`; a server does not. The size has room for a text of 16 MiB as a string
 * literal, which may be twice as long.
 */
const wordingSettings = `implicit_select = 0, max_query_size = ${33 * 1024 ** 2}`;

/**
 * chdb puts off the closing of a connection while any other is busy, and each takes some 140 KB. If more
 * connections than this wait to be closed, the front refuses scopes that need a new one. Tools may fill
 * half of the number, so they cannot make the front refuse Core.
 */
const putOffMaxOf = { analyst: 1_000, core: 2_000 } as const satisfies Record<Account, number>;

/** Server settings: ClickHouse shares the machine with Postgres, Redis and Core itself. */
const connectionArgs = [
  '--max_server_memory_usage_to_ram_ratio=0.5',
  `--mark_cache_size=${512 * 1024 * 1024}`,
];

/**
 * Opens the engine on its directory, with the roles and bounds of `writeEngineConfig`.
 * @throws if the directory is damaged, or locked by another process.
 */
export async function openConnections(directory: string, configFile: string): Promise<Connections> {
  const main = new chdb.Session(directory, {
    connectionArgs: [...connectionArgs, `--config-file=${configFile}`],
  });
  await main.queryAsync(setRole('owner'));
  const scribe = await openScribe(directory);
  const pool = createPool(directory);

  return {
    within: async (scope, reuse, work) => {
      const signature = signatureOf(scope);
      const session = pool.take(signature, putOffMaxOf[scope.account]);
      let clean = false;
      try {
        await session.queryAsync(prelude(scope));
        // Even if `work` fails, the connection stays as the prelude made it.
        clean = reuse;
        return await work((sql, format) =>
          session.queryAsync(sql, format === undefined ? {} : { format }),
        );
      } finally {
        pool.giveBack(signature, session, clean);
      }
    },
    own: (sql, format) => main.queryAsync(sql, format === undefined ? {} : { format }),
    wording: (sql) => scribe.wording(sql),
    close: async () => {
      scribe.close();
      pool.close();
      await chdb.drainPending();
      main.close();
      await chdb.drainPending();
    },
  };
}

/** Writes statements in the engine's own words. */
interface Scribe {
  wording(sql: string): Promise<string>;
  close(): void;
}

/** Opens a connection of its own: a long text must not hold up the front's queries on the main one. */
async function openScribe(directory: string): Promise<Scribe> {
  const session = new chdb.Session(directory);
  await session.queryAsync(`SET ROLE NONE; SET ${wordingSettings}`);
  const wordings = new Map<string, string>();
  return {
    wording: async (sql) => {
      const known = wordings.get(sql);
      if (known !== undefined) return known;
      const asked = `SELECT formatQuerySingleLine(${sqlString(sql)})`;
      const text = (await session.queryAsync(asked, { format: 'RawBLOB' })).text();
      if (sql.length <= wordingCharsMax) {
        if (wordings.size >= wordingsMax) wordings.clear();
        wordings.set(sql, text);
      }
      return text;
    },
    close: () => session.close(),
  };
}

/** Connections that each serve one query at a time, kept by the names that were set on them. */
interface ConnectionPool {
  /** @throws 202 TOO_MANY_SIMULTANEOUS_QUERIES if `putOffMax` closings were put off. */
  take(signature: string, putOffMax: number): Session;
  /** Keeps the connection, or closes one that is not clean. */
  giveBack(signature: string, session: Session, clean: boolean): void;
  close(): void;
}

function createPool(directory: string): ConnectionPool {
  const idle = new Map<string, Session[]>();
  let idleCount = 0;
  let busy = 0;
  let putOff = 0;

  const dropOldest = (): void => {
    for (const [signature, sessions] of idle) {
      const oldest = sessions.shift();
      if (sessions.length === 0) idle.delete(signature);
      if (oldest === undefined) continue;
      idleCount -= 1;
      oldest.close();
      if (busy > 0) putOff += 1;
      return;
    }
  };

  return {
    take: (signature, putOffMax) => {
      const known = idle.get(signature)?.pop();
      if (known === undefined && putOff >= putOffMax) {
        throw clickhouseFault(
          202,
          'TOO_MANY_SIMULTANEOUS_QUERIES',
          'Too many connections wait for a long query to end.',
          { retryAfterSeconds: 5 },
        );
      }
      if (known !== undefined) idleCount -= 1;
      const session = known ?? new chdb.Session(directory);
      busy += 1;
      return session;
    },
    giveBack: (signature, session, clean) => {
      busy -= 1;
      if (busy === 0) putOff = 0;
      if (!clean) {
        session.close();
        if (busy > 0) putOff += 1;
        return;
      }
      if (idleCount >= idleMax) dropOldest();
      // It goes to the end of the map, so that the first signature is the least recently used one.
      const same = idle.get(signature) ?? [];
      same.push(session);
      idle.delete(signature);
      idle.set(signature, same);
      idleCount += 1;
    },
    close: () => {
      for (const session of [...idle.values()].flat()) session.close();
      idle.clear();
    },
  };
}

function signatureOf(scope: Scope): string {
  const names = [...scope.settings.keys(), ...[...scope.params.keys()].map((name) => `{${name}`)];
  return `${scope.account} ${scope.readonly} ${names.sort().join(' ')}`;
}

/**
 * The statements that set everything of a scope, for one call. The profile comes first, so that the engine
 * checks each setting against its bounds. `readonly` comes last, because it allows no change after it.
 */
function prelude(scope: Scope): string {
  const changes = [...scope.settings].map(([name, value]) => `${name} = ${sqlString(value)}`);
  for (const [name, value] of scope.params) changes.push(`param_${name} = ${sqlString(value)}`);
  const statements = [
    `SET profile = ${sqlString(scope.account)}`,
    setRole(scope.readonly ? 'reader' : 'owner'),
    `USE ${sqlName(scope.database)}`,
  ];
  if (changes.length > 0) statements.push(`SET ${changes.join(', ')}`);
  if (scope.readonly) statements.push('SET readonly = 2');
  return statements.join('; ');
}

/** The statement that replaces the rights of a connection with those of a role. */
export function setRole(role: Role): string {
  return `SET ROLE ${role}`;
}
