import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { readIfThere } from '../../durable-file.ts';
import { CoreError } from '../../errors.ts';
import type { Secrets } from '../../secrets.ts';
import { type Account, runAs } from './account.ts';
import { scramVerifier } from './scram.ts';

/** The name of Core's own role and of its database. */
export const coreName = 'core';
/** Sets the database up and does nothing else. */
export const superuserName = 'postgres';

export type PostgresPasswords = Pick<Secrets, 'postgres' | 'postgresSuperuser'>;

/** Goes up with every change of the statements below, so that they run again. */
const setupVersion = 1;
const markerName = 'core-setup.json';
/** If Postgres was killed, it first replays its write-ahead log. */
const runMsMax = 300_000;

/** Runs statements in one database, each a transaction of its own, and returns Postgres' output. */
export type RunStatements = (database: string, statements: readonly string[]) => Promise<string>;

/**
 * Gives a stopped Postgres its two roles, their passwords and Core's database, unless it has them: after
 * initdb, in a folder of an earlier Core, and if the passwords are others. An earlier Core was the
 * superuser `core` of the database `postgres`: that superuser becomes `postgres`, the database becomes
 * `core`, and an ordinary role `core` becomes the owner of all in it.
 *
 * Nobody can connect meanwhile: the statements go to Postgres' single-user mode. Each of its runs may be
 * cut off anywhere; the next start does all of it again and comes to the same.
 * @throws CoreError EMBEDDED_SERVER_FAILED with Postgres' own reason
 */
export async function setUpPostgres(
  files: { folder: string; account: Account },
  passwords: PostgresPasswords,
  run: RunStatements,
): Promise<void> {
  await writeAs(files, 'pg_hba.conf', hostAccess);
  const marker = `${JSON.stringify({ version: setupVersion, passwords: fingerprint(passwords) })}\n`;
  if (readIfThere(path.join(files.folder, markerName)) === marker) return;
  const output = await run('template1', [
    setUpRoles(passwords),
    'REVOKE ALL ON SCHEMA public FROM PUBLIC',
    'SELECT datname FROM pg_database',
  ]);
  const found = new Set([...output.matchAll(/datname = "([^"]*)"/g)].map((match) => match[1]));
  await run('template1', [
    ...[coreName, superuserName]
      .filter((name) => !found.has(name))
      .map((name) => `CREATE DATABASE ${name}`),
    `ALTER DATABASE ${coreName} OWNER TO ${coreName}`,
    `REVOKE ALL ON DATABASE ${coreName}, ${superuserName}, template1 FROM PUBLIC`,
  ]);
  await run(coreName, ['REVOKE ALL ON SCHEMA public FROM PUBLIC', handOverObjects]);
  await writeAs(files, markerName, marker);
}

/** The next start sets the roles and passwords up again. */
export function forgetSetup(folder: string): void {
  rmSync(path.join(folder, markerName), { force: true });
}

/** Who may connect: the two roles, from this machine, by their passwords. */
const hostAccess = `# Core writes this file at every start.
# TYPE  DATABASE  USER      ADDRESS       METHOD
host    all       ${coreName}      127.0.0.1/32  scram-sha-256
host    all       ${superuserName}  127.0.0.1/32  scram-sha-256
`;

/**
 * One statement, so that it is done wholly or not at all. The session's own role cannot be renamed,
 * hence the one in between. 10 is the id of the superuser that initdb makes.
 */
function setUpRoles(passwords: PostgresPasswords): string {
  return `DO $setup$
DECLARE
  first_name name := (SELECT rolname FROM pg_roles WHERE oid = 10);
BEGIN
  IF first_name <> '${superuserName}' THEN
    CREATE ROLE core_setup SUPERUSER;
    SET SESSION AUTHORIZATION core_setup;
    EXECUTE format('ALTER ROLE %I RENAME TO ${superuserName}', first_name);
    SET SESSION AUTHORIZATION ${superuserName};
    DROP ROLE core_setup;
    ALTER DATABASE ${superuserName} RENAME TO ${coreName};
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '${coreName}') THEN
    CREATE ROLE ${coreName};
  END IF;
  ALTER ROLE ${coreName} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD '${scramVerifier(passwords.postgres)}';
  ALTER ROLE ${superuserName} LOGIN SUPERUSER
    PASSWORD '${scramVerifier(passwords.postgresSuperuser)}';
END $setup$`;
}

/**
 * REASSIGN OWNED refuses the superuser that initdb made, so each object is handed over by itself: what
 * it owns in schemas that are not Postgres' own. An identity's sequence, an index and a row type go with
 * their table; what belongs to an extension stays with it. 16384 is the first id that is not built in.
 */
const handOverObjects = `DO $objects$
DECLARE
  command text;
BEGIN
  FOR command IN
    WITH inner_parts AS (
      SELECT classid, objid FROM pg_depend WHERE deptype IN ('a', 'i', 'e')
    )
    SELECT format('ALTER SCHEMA %I OWNER TO ${coreName}', nspname) FROM pg_namespace n
    WHERE nspowner = 10 AND n.oid >= 16384 AND nspname !~ '^pg_'
      AND ('pg_namespace'::regclass, n.oid) NOT IN (SELECT classid, objid FROM inner_parts)
    UNION ALL
    SELECT format('ALTER %s %s OWNER TO ${coreName}',
      CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
        WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.oid::regclass)
    FROM pg_class c
    WHERE relowner = 10 AND c.oid >= 16384 AND relkind IN ('r', 'p', 'S', 'v', 'm', 'f')
      AND relnamespace::regnamespace::text !~ '^pg_'
      AND (relkind <> 'S' OR ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM inner_parts))
      AND NOT EXISTS (SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    UNION ALL
    SELECT format('ALTER ROUTINE %s OWNER TO ${coreName}', p.oid::regprocedure) FROM pg_proc p
    WHERE proowner = 10 AND p.oid >= 16384
      AND ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM inner_parts)
    UNION ALL
    SELECT format('ALTER TYPE %s OWNER TO ${coreName}', t.oid::regtype) FROM pg_type t
    WHERE typowner = 10 AND t.oid >= 16384 AND typtype IN ('c', 'd', 'e', 'r')
      AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM inner_parts)
  LOOP
    EXECUTE command;
  END LOOP;
END $objects$`;

/** Tells whether the passwords are the same. A hash tells nothing of 32 random bytes. */
function fingerprint(passwords: PostgresPasswords): string {
  const both = `${passwords.postgres} ${passwords.postgresSuperuser}`;
  return createHash('sha256').update(both).digest('hex');
}

/**
 * Writes a file into Postgres' folder as the folder's owner: root would follow a link that a server
 * which had been taken over might have put there. After a crash it is compared and written again.
 */
async function writeAs(
  { folder, account }: { folder: string; account: Account },
  name: string,
  content: string,
): Promise<void> {
  if (readIfThere(path.join(folder, name)) === content) return;
  const script = 'umask 077 && rm -f "$1.new" && cat >"$1.new" && mv -f "$1.new" "$1"';
  await runAs(account, folder, ['sh', '-c', script, 'sh', name], { input: content });
}

/**
 * The statements' way to a stopped Postgres: its single-user mode, which listens nowhere, asks for no
 * password, and ends at the first error.
 */
export function singleUser(
  postgres: string,
  { folder, account }: { folder: string; account: Account },
  signal: AbortSignal,
): RunStatements {
  return async (database, statements) => {
    // `-j`: a statement ends with a semicolon and an empty line.
    const input = statements.map((statement) => `${statement};\n\n`).join('');
    const settings = [
      'exit_on_error=on',
      'log_min_messages=fatal',
      'log_min_error_statement=panic',
    ];
    const command = [
      ...[postgres, '--single', '-j', '-D', folder],
      ...settings.flatMap((setting) => ['-c', setting]),
      database,
    ];
    try {
      return await runAs(account, folder, command, { input, signal, timeout: runMsMax });
    } catch (cause) {
      throw new CoreError(
        'EMBEDDED_SERVER_FAILED',
        `Postgres could not set up its roles and its database in ${folder}: ${lastLine(cause)}`,
        { cause },
      );
    }
  };
}

/** Why a program gave up, by what it wrote to stderr. */
export function lastLine(cause: unknown): string {
  const { stderr, message } = cause as { stderr?: string; message: string };
  const lines = (stderr ?? '').split('\n').filter((line) => /error|fatal/i.test(line));
  return (lines[0] ?? message.split('\n')[0] ?? '').trim().replace(/\.$/, '');
}
