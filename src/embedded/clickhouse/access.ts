import { availableParallelism, totalmem } from 'node:os';
import path from 'node:path';
import { writeDurable } from '../../durable-file.ts';

/**
 * Accounts of clients: `core` is Core itself and may do all that Core needs, `analyst` is for tools and only
 * reads.
 */
export type Account = 'core' | 'analyst';

/**
 * Roles of the engine. The engine has one user, who has no rights. The front sets a role before each
 * statement, and the statement may do what that role allows. Only `loader` may read a file, and only
 * statements that the front wrote run with it.
 */
export type Role = 'reader' | 'owner' | 'loader';

/** A setting that has a bound, with the value that applies if a request says nothing. */
export interface Bound {
  name: string;
  value: number;
  max: number;
}

const gib = 1024 ** 3;

/**
 * Queries of tools that run at once. Together they may use a quarter of the memory. The engine has half of
 * it, so there is always some for Core's inserts.
 */
export const analystQueriesMax = 4;

/** Bounds of an account's queries. The minimum is 1, because 0 means `no bound` to ClickHouse. */
export function boundsOf(account: Account): readonly Bound[] {
  const memoryBytes = totalmem();
  const exactly = (name: string, max: number): Bound => ({ name, value: max, max });
  if (account === 'core') {
    return [
      exactly('max_memory_usage', Math.floor(memoryBytes / 2)),
      exactly('max_execution_time', 3_600),
      exactly('max_result_rows', 1_000_000_000),
      exactly('max_result_bytes', 8 * gib),
      exactly('max_temporary_data_on_disk_size_for_query', 64 * gib),
      { name: 'max_threads', value: availableParallelism(), max: 64 },
      { name: 'max_block_size', value: blockRows, max: 16 * 1024 ** 2 },
      querySizeOf(account),
    ];
  }
  return [
    exactly('max_memory_usage', Math.floor(memoryBytes / 4 / analystQueriesMax)),
    exactly('max_execution_time', 600),
    exactly('max_result_rows', 100_000_000),
    exactly('max_result_bytes', 2 * gib),
    exactly('max_temporary_data_on_disk_size_for_query', 8 * gib),
    exactly('max_threads', Math.min(4, availableParallelism())),
    { name: 'max_block_size', value: blockRows, max: 1024 ** 2 },
    querySizeOf(account),
  ];
}

/** ClickHouse's own defaults. */
const blockRows = 65_409;
const queryBytes = 256 * 1024;

/** Longest statement that the engine gets, in its own words, from any account. */
export const queryBytesMax = 16 * 1024 ** 2;

/**
 * Bound of a statement's length. The front splits statements on the thread that takes Core's inserts, and
 * needs some 0.15 ms for a KiB. So a tool may not send as much as Core.
 */
export function querySizeOf(account: Account): Bound {
  const max = account === 'core' ? queryBytesMax : 1024 ** 2;
  return { name: 'max_query_size', value: queryBytes, max };
}

const roles: Readonly<Record<Role, readonly string[]>> = {
  reader: ['GRANT SELECT, SHOW ON *.*'],
  owner: [
    `GRANT SELECT, SHOW, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP, TRUNCATE,
     OPTIMIZE, KILL QUERY, CHECK, SYSTEM MERGES ON *.*`,
  ],
  loader: ['GRANT SELECT, SHOW, INSERT, CREATE TEMPORARY TABLE ON *.*', 'GRANT READ ON FILE'],
};

/**
 * Writes the engine's configuration: the roles, and the bounds of each account as a settings profile of its
 * name, which the engine enforces. It holds no secret.
 * @returns the path of the file that the engine is started with.
 */
export function writeEngineConfig(folder: string): string {
  const users = path.join(folder, 'users.xml');
  const config = path.join(folder, 'config.xml');
  writeDurable(users, usersXml());
  writeDurable(
    config,
    `<clickhouse>
  <users_config>${escapeXml(users)}</users_config>
</clickhouse>
`,
  );
  return config;
}

function usersXml(): string {
  const roleXml = Object.entries(roles).map(
    ([role, grants]) =>
      `<${role}><grants>${grants.map((grant) => `<query>${grant}</query>`).join('')}</grants></${role}>`,
  );
  return `<clickhouse>
  <profiles>
    <default></default>
    ${(['core', 'analyst'] as const).map(profileXml).join('\n    ')}
  </profiles>
  <roles>
    ${roleXml.join('\n    ')}
  </roles>
  <users>
    <default>
      <password></password>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT ${Object.keys(roles).join(', ')}</query></grants>
    </default>
  </users>
  <quotas><default></default></quotas>
</clickhouse>
`;
}

function profileXml(account: Account): string {
  const bounds = boundsOf(account);
  const values = bounds.map(({ name, value }) => `<${name}>${value}</${name}>`);
  const constraints = bounds.map(
    ({ name, max }) => `<${name}><min>1</min><max>${max}</max></${name}>`,
  );
  return `<${account}>${values.join('')}
      <constraints>${constraints.join('')}</constraints></${account}>`;
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
