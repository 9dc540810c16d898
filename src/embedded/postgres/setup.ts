import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { readIfThere } from '../../durable-file.ts';
import { CoreError } from '../../errors.ts';
import type { Secrets } from '../../secrets.ts';
import { runAs, type SystemAccount } from './account.ts';
import { scramVerifier } from './scram.ts';

/** The name of Core's own role and of its database. */
export const coreName = 'core';
/** Sets the database up and does nothing else. */
export const superuserName = 'postgres';

export type PostgresPasswords = Pick<Secrets, 'postgres' | 'postgresSuperuser'>;

/** Raise it with every change of the statements below, so that they run again. */
const setupVersion = 1;
const markerName = 'core-setup.json';
/** A Postgres that was killed first replays its write-ahead log. */
const runMsMax = 300_000;

/** Runs statements in one database, each in a transaction of its own, and returns Postgres' output. */
export type RunStatements = (database: string, statements: readonly string[]) => Promise<string>;

/**
 * Gives a stopped Postgres its two roles, their passwords and Core's database. It has work to do after
 * initdb, in a folder of an earlier Core, and when the passwords have changed. An earlier Core was the
 * superuser `core` of the database `postgres`. Now that superuser becomes `postgres` and the database
 * becomes `core`. An ordinary role `core` becomes the owner of everything in it.
 *
 * Nobody can connect meanwhile, because the statements go to Postgres' single-user mode. A crash may cut
 * it off anywhere: the next start does all of it again, with the same outcome.
 * @throws CoreError EMBEDDED_SERVER_FAILED with Postgres' own reason
 */
export async function setUpPostgres(
  files: { folder: string; account: SystemAccount },
  passwords: PostgresPasswords,
  run: RunStatements,
): Promise<void> {
  await writeAs(files, 'pg_hba.conf', hostAccess);
  const marker = `${JSON.stringify({ version: setupVersion, passwords: hashOf(passwords) })}\n`;
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

/** Makes the next start set the roles and passwords up again. */
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
 * One statement, so that all of it is done or nothing. A session cannot rename its own role, so the
 * temporary role `core_setup` does it. 10 is the id of the superuser that initdb makes.
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
 * Gives the role `core` every object that the superuser of initdb owns in schemas other than Postgres' own.
 * REASSIGN OWNED refuses that superuser, so it is done object by object. An identity's sequence, an index
 * and a row type go with their table. Objects of an extension stay with it. 16384 is the first id that is
 * not built in.
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

/** Shows whether the passwords are the same. Nobody can find 32 random bytes by their hash. */
function hashOf(passwords: PostgresPasswords): string {
  const both = `${passwords.postgres} ${passwords.postgresSuperuser}`;
  return createHash('sha256').update(both).digest('hex');
}

/**
 * Writes a file into Postgres' folder as the folder's owner. An attacker who has taken over the server
 * could put a link into the folder, and root would follow it. It is not fsynced: the next start compares
 * the file and writes it again.
 */
async function writeAs(
  { folder, account }: { folder: string; account: SystemAccount },
  name: string,
  content: string,
): Promise<void> {
  if (readIfThere(path.join(folder, name)) === content) return;
  const script = 'umask 077 && rm -f "$1.new" && cat >"$1.new" && mv -f "$1.new" "$1"';
  await runAs(account, folder, ['sh', '-c', script, 'sh', name], { input: content });
}

/**
 * Runs statements in a stopped Postgres by its single-user mode, which listens nowhere, asks for no password,
 * and ends at the first error.
 */
export function singleUser(
  postgres: string,
  { folder, account }: { folder: string; account: SystemAccount },
  signal: AbortSignal,
): RunStatements {
  return async (database, statements) => {
    // With `-j` a statement ends with a semicolon and an empty line.
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
        `Postgres could not set up its roles and its database in ${folder}: ${firstErrorLine(cause)}`,
        { cause },
      );
    }
  };
}

/** Why a program of Postgres gave up: its first error on stderr, since later ones often follow from it. */
export function firstErrorLine(cause: unknown): string {
  const { stderr, message } = cause as { stderr?: string; message: string };
  const line = (stderr ?? '').split('\n').find((one) => /error|fatal/i.test(one));
  return (line ?? message.split('\n')[0] ?? '').trim().replace(/\.$/, '');
}
