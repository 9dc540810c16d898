import assert from 'node:assert/strict';
import type pg from 'pg';
import { bumpNodes } from '../nodes/bump.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { addSubscriptions, type NewSubscription } from './create.ts';
import { addLinks, createSeenUuids, faultsOfLinks, type GivenLink } from './import-links.ts';

/** A subscription to add. The user is given by id or by name; an unknown name makes a new user. */
export type ImportedSubscription = Omit<NewSubscription, 'userId'> & {
  user: { id: number } | { name: string };
  /** Links with UUIDs from the file. All others get new UUIDs. */
  links?: readonly GivenLink[] | undefined;
};

/** A line of an import, numbered from 1 as an editor does. */
export type ImportLine =
  | { line: number; subscription: ImportedSubscription }
  | { line: number; fault: string };

interface BadLine {
  line: number;
  fault: string;
}

export interface ImportReport {
  /** False if bad lines stopped the import, or if there was no good line. */
  imported: boolean;
  subscriptions: number;
  /** New users. */
  users: number;
  links: number;
  badLines: number;
  /** The first bad lines. */
  bad: BadLine[];
}

export interface ImportProgress {
  phase: 'checking' | 'writing';
  lines: number;
  /** Known once every line is checked. */
  linesTotal: number | undefined;
}

const batchLines = 5_000;
const badShownMax = 100;

/**
 * Adds many subscriptions, each with a link to every protocol of every node that is not revoked.
 * `open` returns the lines. It is called twice: first to check every line, then to write. The writes
 * are one transaction, with one bump of the nodes at its end, so either all good lines are imported or
 * nothing is. With `keepGoing` bad lines are left out. Without it, one bad line stops the import.
 *
 * Memory holds one batch of lines at a time. Adding a protocol waits until the import has ended.
 */
export async function importSubscriptions(
  pool: pg.Pool,
  open: () => AsyncIterable<ImportLine>,
  options: { keepGoing: boolean; onProgress?: ((progress: ImportProgress) => void) | undefined },
): Promise<ImportReport> {
  const report: ImportReport = {
    imported: false,
    subscriptions: 0,
    users: 0,
    links: 0,
    badLines: 0,
    bad: [],
  };
  const { good, linesTotal } = await check(pool, open, report, (lines) =>
    options.onProgress?.({ phase: 'checking', lines, linesTotal: undefined }),
  );
  if (good === 0 || (report.badLines > 0 && !options.keepGoing)) return report;
  const written = await inTransaction(pool, (client) =>
    write(client, open, (lines) => options.onProgress?.({ phase: 'writing', lines, linesTotal })),
  );
  return { ...report, ...written, imported: true };
}

/** Adds the bad lines to the report. */
async function check(
  pool: pg.Pool,
  open: () => AsyncIterable<ImportLine>,
  report: ImportReport,
  onLines: (lines: number) => void,
): Promise<{ good: number; linesTotal: number }> {
  let linesTotal = 0;
  let good = 0;
  const client = await pool.connect();
  try {
    await createSeenUuids(client, 'disconnect');
    for await (const batch of batches(open())) {
      const checked = await checkBatch(client, batch);
      good += checked.good.length;
      report.badLines += checked.bad.length;
      report.bad.push(...checked.bad.slice(0, badShownMax - report.bad.length));
      linesTotal += batch.length;
      onLines(linesTotal);
    }
  } finally {
    // Closes the connection, so that Postgres drops the table of UUIDs.
    client.release(true);
  }
  return { good, linesTotal };
}

async function write(
  client: pg.PoolClient,
  open: () => AsyncIterable<ImportLine>,
  onLines: (lines: number) => void,
): Promise<Pick<ImportReport, 'subscriptions' | 'users' | 'links'>> {
  const written = { subscriptions: 0, users: 0, links: 0 };
  await createSeenUuids(client, 'commit');
  await lockLinks(client, 'subscriptions');
  const protocols = await client.query<{ id: number; node_id: number }>(
    `SELECT p.id, p.node_id FROM node_protocols p JOIN nodes n ON n.id = p.node_id
     WHERE n.revoked_at IS NULL ORDER BY p.id`,
  );
  const protocolIds = protocols.rows.map((row) => row.id);
  let isAnyActive = false;
  let lines = 0;
  for await (const batch of batches(open())) {
    const { good } = await checkBatch(client, batch);
    const made = await createMissingUsers(client, good);
    const added = await addSubscriptions(
      client,
      good.map(({ user, links: _, ...rest }) => ({
        ...rest,
        userId: userIdOf(user, made.idsByName),
      })),
    );
    const links = added.map((row, at) => ({ ...row, links: good[at]?.links ?? [] }));
    isAnyActive ||= added.some((row) => row.status === 'active');
    written.subscriptions += added.length;
    written.users += made.count;
    written.links += await addLinks(client, links, protocolIds);
    lines += batch.length;
    onLines(lines);
  }
  // Bumped last, because from here on every other bump of these nodes waits.
  if (isAnyActive) {
    const nodeIds = [...new Set(protocols.rows.map((row) => row.node_id))];
    await bumpNodes(client, nodeIds, 'subscriptions imported');
  }
  return written;
}

async function* batches(lines: AsyncIterable<ImportLine>): AsyncGenerator<ImportLine[]> {
  let batch: ImportLine[] = [];
  for await (const line of lines) {
    batch.push(line);
    if (batch.length < batchLines) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

/** Checks what needs the database: whether each line names one existing user and possible links. */
async function checkBatch(
  client: pg.PoolClient,
  batch: readonly ImportLine[],
): Promise<{ good: ImportedSubscription[]; bad: BadLine[] }> {
  const good: ImportedSubscription[] = [];
  const bad: BadLine[] = [];
  const users = batch.flatMap((line) => ('fault' in line ? [] : [line.subscription.user]));
  const known = await client.query<{ id: number }>(
    'SELECT id FROM users WHERE id = ANY ($1::bigint[]) FOR KEY SHARE',
    [users.flatMap((user) => ('id' in user ? [user.id] : []))],
  );
  const knownIds = new Set(known.rows.map((row) => row.id));
  const byName = await findUsers(client, users);
  const linkFaults = await faultsOfLinks(
    client,
    batch.flatMap((line) =>
      'fault' in line ? [] : [{ line: line.line, links: line.subscription.links ?? [] }],
    ),
  );
  for (const line of batch) {
    if ('fault' in line) {
      bad.push(line);
      continue;
    }
    const { user } = line.subscription;
    const linkFault = linkFaults.get(line.line);
    if ('id' in user && !knownIds.has(user.id)) {
      bad.push({ line: line.line, fault: `user_id: there is no user ${user.id}` });
    } else if ('name' in user && (byName.get(user.name)?.length ?? 0) > 1) {
      const fault = `user: several users are called ${user.name}; give user_id instead`;
      bad.push({ line: line.line, fault });
    } else if (linkFault !== undefined) {
      bad.push({ line: line.line, fault: linkFault });
    } else {
      good.push(line.subscription);
    }
  }
  return { good, bad };
}

async function findUsers(
  db: Queryable,
  users: readonly ImportedSubscription['user'][],
): Promise<Map<string, number[]>> {
  const names = [...new Set(users.flatMap((user) => ('name' in user ? [user.name] : [])))];
  const found = await db.query<{ id: number; name: string }>(
    'SELECT id, name FROM users WHERE name = ANY ($1::text[])',
    [names],
  );
  const byName = new Map<string, number[]>();
  for (const { id, name } of found.rows) byName.set(name, [...(byName.get(name) ?? []), id]);
  return byName;
}

async function createMissingUsers(
  client: pg.PoolClient,
  subscriptions: readonly ImportedSubscription[],
): Promise<{ idsByName: Map<string, number>; count: number }> {
  const users = subscriptions.map((subscription) => subscription.user);
  const byName = await findUsers(client, users);
  const idsByName = new Map<string, number>();
  for (const [name, [id]] of byName) if (id !== undefined) idsByName.set(name, id);
  const missing = new Set<string>();
  for (const user of users) {
    if ('name' in user && !idsByName.has(user.name)) missing.add(user.name);
  }
  const made = await client.query<{ id: number; name: string }>(
    'INSERT INTO users (name) SELECT unnest($1::text[]) RETURNING id, name',
    [[...missing]],
  );
  for (const { id, name } of made.rows) idsByName.set(name, id);
  return { idsByName, count: made.rows.length };
}

function userIdOf(
  user: ImportedSubscription['user'],
  idsByName: ReadonlyMap<string, number>,
): number {
  const id = 'id' in user ? user.id : idsByName.get(user.name);
  assert(id !== undefined, 'an unknown name has become a new user');
  return id;
}
