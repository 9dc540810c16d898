import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import type pg from 'pg';
import { startPostgres } from '../../../src/embedded/postgres/start.ts';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import { createLogger } from '../../../src/log.ts';
import { projectRoot } from '../../../src/root.ts';
import { makeSecrets, withPassword } from '../../../src/secrets.ts';
import { createPool } from '../../../src/stores/postgres.ts';
import { fixedPorts } from '../../../test/support/free-port.ts';
import { coreFormat } from '../bodies.ts';
import { numberedWorld } from '../micro.ts';
import type { Peer } from './peer.ts';
import { createFolder } from './program.ts';

const readyMsMax = 60_000;
const server = path.join(projectRoot, 'dist', 'bench', 'measure', 'peers', 'fastify-server.js');

export const fastifyAndPostgres: Peer = {
  name: 'Fastify and pg',
  caveat:
    'no keys; checks every field by JSON schema, but converts values first, as Fastify does by ' +
    'default (true becomes 1, an empty string null); syncs the commit before the answer; rows and ' +
    'counters in one transaction; stores and counts a repeated body twice.',
  missing: () => undefined,
  async open(lifecycle, { signal, subscriptions }) {
    const dataDir = createFolder(lifecycle);
    mkdirSync(path.join(dataDir, 'logs'));
    const [port = 0] = await fixedPorts(1);
    const passwords = makeSecrets(dataDir);
    const databaseUrl = `postgres://core@127.0.0.1:${port}/core`;
    const log = createLogger('error');
    const postgres = await startPostgres({ dataDir, port, passwords }, log, signal);
    lifecycle.use('postgres', () => postgres.stop());
    const pool = createPool(withPassword(databaseUrl, passwords.postgres), { max: 2 });
    lifecycle.use('postgres client', () => pool.end());
    await createTables(pool, subscriptions);
    return {
      target: {
        url: await startServer(lifecycle, databaseUrl, passwords.postgres, signal),
        path: '/node/usage',
        headers: { 'content-type': 'application/json' },
      },
      format: coreFormat,
      overwrittenShareMax: 0,
      async countStored() {
        const { rows } = await pool.query<{ count: number }>(
          'SELECT count(*)::float8 AS count FROM peer.usage',
        );
        return rows[0]?.count ?? 0;
      },
      check: () => checkCounters(pool),
    };
  },
};

async function createTables(pool: pg.Pool, subscriptions: number): Promise<void> {
  await pool.query(`
    CREATE SCHEMA peer;
    CREATE TABLE peer.usage (
      user_id bigint NOT NULL, subscription_id bigint, node_protocol_id bigint NOT NULL,
      bytes_up bigint NOT NULL, bytes_down bigint NOT NULL, recorded_at timestamptz NOT NULL
    );
    CREATE TABLE peer.subscriptions (
      id bigint PRIMARY KEY, bytes_up bigint NOT NULL DEFAULT 0,
      bytes_down bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50);`);
  const { subscriptionIds } = numberedWorld(subscriptions);
  await pool.query('INSERT INTO peer.subscriptions (id) SELECT unnest($1::bigint[])', [
    subscriptionIds,
  ]);
  await pool.query('VACUUM ANALYZE peer.subscriptions');
}

async function startServer(
  lifecycle: Lifecycle,
  databaseUrl: string,
  password: string,
  signal: AbortSignal,
): Promise<string> {
  // Detached, so that Ctrl-C reaches the bench alone. The process ends when its IPC channel does.
  const child: ChildProcess = fork(server, [databaseUrl], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    detached: true,
    // Not an argument, since everybody on the machine can read arguments.
    env: { ...process.env, PGPASSWORD: password },
  });
  const ended = once(child, 'exit');
  lifecycle.use('fastify', async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const waiting = AbortSignal.any([signal, AbortSignal.timeout(readyMsMax)]);
  const told = once(child, 'message', { signal: waiting });
  const [first] = (await Promise.race([told, ended])) as [{ port: number } | 1];
  if (typeof first !== 'object' || first === null) throw new Error('fastify did not start');
  return `http://127.0.0.1:${first.port}`;
}

async function checkCounters(pool: pg.Pool) {
  const { rows } = await pool.query<{ rows: string; counters: string }>(`
    SELECT (SELECT coalesce(sum(bytes_up + bytes_down), 0)::text FROM peer.usage) AS rows,
           (SELECT sum(bytes_up + bytes_down)::text FROM peer.subscriptions) AS counters`);
  const [found] = rows;
  return {
    name: 'counters are the sum of the rows',
    passed: found !== undefined && found.rows === found.counters,
    detail: `rows add up to ${found?.rows} bytes, counters to ${found?.counters}`,
  };
}
