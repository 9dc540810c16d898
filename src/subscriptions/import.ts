import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { defaultGroup, findGroups, unknownGroups } from '../groups/names.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { lockImports } from '../nodes/lock-imports.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { addSubscriptions } from './create.ts';
import { lockCredentials } from './credentials.ts';
import { createSeenExternalIds, findKnown } from './import-known.ts';
import { addGivenLinks, createSeenCredentials, faultsOfCredentials } from './import-links.ts';
import { addNote, emptyPlan, type ImportPlan, planLine } from './import-plan.ts';
import type { ImportedSubscription, ImportLine } from './imported.ts';

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
  plan: ImportPlan;
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
 * Adds many subscriptions, each with a link to every protocol that is in one of its groups. `open` returns the lines. It is called twice: first to check every line, then to write. The writes
 * are one transaction, with one bump of the nodes at its end, so either all good lines are imported or
 * nothing is. With `keepGoing` bad lines are left out. Without it, one bad line stops the import.
 *
 * Memory holds one batch of lines at a time.
 */
export async function importSubscriptions(
  pool: pg.Pool,
  open: () => AsyncIterable<ImportLine>,
  options: {
    keepGoing: boolean;
    onProgress?: ((progress: ImportProgress) => void) | undefined;
    /** Asked once every line is checked. Nothing is written if it says no. */
    proceed?: ((checked: ImportReport) => Promise<boolean>) | undefined;
  },
): Promise<ImportReport> {
  const report: ImportReport = {
    imported: false,
    subscriptions: 0,
    users: 0,
    links: 0,
    badLines: 0,
    bad: [],
    plan: emptyPlan(),
  };
  const { good, linesTotal, badDigest } = await check(pool, open, report, (lines) =>
    options.onProgress?.({ phase: 'checking', lines, linesTotal: undefined }),
  );
  const isPossible = good > 0 && (report.badLines === 0 || options.keepGoing);
  const isWanted =
    (await options.proceed?.({ ...report, subscriptions: isPossible ? good : 0 })) ?? true;
  if (!isPossible || !isWanted) return report;
  const written = await inTransaction(pool, (client) =>
    write(client, open, { lines: report.badLines, digest: badDigest }, (lines) =>
      options.onProgress?.({ phase: 'writing', lines, linesTotal }),
    ),
  );
  return { ...report, ...written, imported: true };
}

/** Adds the bad lines to the report. */
async function check(
  pool: pg.Pool,
  open: () => AsyncIterable<ImportLine>,
  report: ImportReport,
  onLines: (lines: number) => void,
): Promise<{ good: number; linesTotal: number; badDigest: string }> {
  const badNumbers = createHash('sha256');
  let linesTotal = 0;
  let good = 0;
  const client = await pool.connect();
  try {
    await createSeenCredentials(client, 'disconnect');
    await createSeenExternalIds(client, 'disconnect');
    for await (const batch of batches(open())) {
      const checked = await checkBatch(client, batch, report.plan);
      good += checked.good.length;
      report.badLines += checked.bad.length;
      for (const { line } of checked.bad) badNumbers.update(`${line},`);
      report.bad.push(...checked.bad.slice(0, badShownMax - report.bad.length));
      linesTotal += batch.length;
      onLines(linesTotal);
    }
  } finally {
    // Closes the connection, so that Postgres drops the table of credentials.
    client.release(true);
  }
  return { good, linesTotal, badDigest: badNumbers.digest('hex') };
}

async function write(
  client: pg.PoolClient,
  open: () => AsyncIterable<ImportLine>,
  checkedBad: { lines: number; digest: string },
  onLines: (lines: number) => void,
): Promise<Pick<ImportReport, 'subscriptions' | 'users' | 'links'>> {
  const written = { subscriptions: 0, users: 0 };
  await createSeenCredentials(client, 'commit');
  await createSeenExternalIds(client, 'commit');
  await lockCredentials(client);
  await lockImports(client, 'importing');
  const groups = new GroupSets();
  let lines = 0;
  const badNumbers = createHash('sha256');
  let badLines = 0;
  let lastBad: BadLine | undefined;
  for await (const batch of batches(open())) {
    const { good, bad } = await checkBatch(client, batch, emptyPlan());
    badLines += bad.length;
    lastBad = bad.at(-1) ?? lastBad;
    for (const { line } of bad) badNumbers.update(`${line},`);
    if (badLines > checkedBad.lines) throw changedMeanwhile(lastBad);
    const made = await createMissingUsers(client, good);
    const added = await addSubscriptions(
      client,
      good.map(({ user, links: _, groups: __, ...rest }) => ({
        ...rest,
        userId: userIdOf(user, made.idsByName),
      })),
    );
    await addGivenLinks(
      client,
      added.map(({ subscriptionId }, at) => ({ subscriptionId, links: good[at]?.links ?? [] })),
    );
    for (const [at, { status }] of added.entries()) {
      groups.add(good[at]?.groupIds ?? [], status === 'active');
    }
    written.subscriptions += added.length;
    written.users += made.count;
    lines += batch.length;
    onLines(lines);
  }
  // As many bad lines as before may still be others, and a good one must not be left out in their place.
  if (badNumbers.digest('hex') !== checkedBad.digest) throw changedMeanwhile(lastBad);
  // Bumped last, because from here on every other bump of these nodes waits.
  await lockLinks(client, 'subscriptions');
  const { links, nodeIds } = await groups.links(client);
  await bumpNodes(client, nodeIds, 'subscriptions imported');
  return { ...written, links };
}

/** A line that was good when it was checked must not be left out in silence. */
function changedMeanwhile(last: BadLine | undefined): CoreError {
  const where = last === undefined ? 'a bad line is good now' : `line ${last.line}: ${last.fault}`;
  return new CoreError(
    'INVALID_ARGUMENT',
    `Something changed after the check, so nothing was imported: ${where}. Run it again`,
  );
}

/** Counts imported subscriptions by their sets of groups. Those with one set have links to the same protocols. */
class GroupSets {
  readonly #sets = new Map<string, { ids: readonly number[]; all: number; active: number }>();

  add(ids: readonly number[], isActive: boolean): void {
    const sorted = ids.toSorted((left, right) => left - right);
    const key = sorted.join();
    const set = this.#sets.get(key) ?? { ids: sorted, all: 0, active: 0 };
    set.all += 1;
    if (isActive) set.active += 1;
    this.#sets.set(key, set);
  }

  /** How many links they have, and the nodes that serve one that is active. */
  async links(client: pg.PoolClient): Promise<{ links: number; nodeIds: number[] }> {
    let links = 0;
    const nodeIds = new Set<number>();
    for (const { ids, all, active } of this.#sets.values()) {
      const { rows } = await client.query<{ protocols: number; nodeIds: number[] }>(
        `SELECT count(*)::integer AS protocols, coalesce(json_agg(DISTINCT p.node_id), '[]') AS "nodeIds"
         FROM node_protocols p JOIN nodes n ON n.id = p.node_id
         WHERE n.revoked_at IS NULL AND p.id IN (
           SELECT node_protocol_id FROM protocol_groups WHERE group_id = ANY ($1::integer[]))`,
        [ids],
      );
      links += all * (rows[0]?.protocols ?? 0);
      if (active > 0) for (const id of rows[0]?.nodeIds ?? []) nodeIds.add(id);
    }
    return { links, nodeIds: [...nodeIds] };
  }
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

/** A line that can be written, with the ids of its groups. */
type GoodLine = ImportedSubscription & { groupIds: number[] };

/**
 * Checks what needs the database: that each line names one existing user, groups, and possible credentials.
 * Lines that an earlier import has added are neither good nor bad.
 */
async function checkBatch(
  client: pg.PoolClient,
  lines: readonly ImportLine[],
  plan: ImportPlan,
): Promise<{ good: GoodLine[]; bad: BadLine[] }> {
  const good: GoodLine[] = [];
  const bad: BadLine[] = [];
  const batch = await withoutKnown(client, lines, plan);
  const given = batch.flatMap((line) => ('fault' in line ? [] : [line]));
  const userFault = await userFaults(
    client,
    given.map((line) => line.subscription.user),
  );
  const groups = await findGroups(client, [...new Set(given.flatMap(groupNames))]);
  const idsOf = (line: GivenLine): number[] =>
    groupNames(line).flatMap((name) => groups.get(name) ?? []);
  const credentialFaults = await faultsOfCredentials(
    client,
    given.map((line) => {
      const { links = [], credential } = line.subscription;
      return { line: line.line, links, credential, groupIds: idsOf(line) };
    }),
  );
  for (const line of batch) {
    if ('fault' in line) {
      bad.push(line);
      continue;
    }
    const unknown = groupNames(line).filter((name) => !groups.has(name));
    const fault =
      userFault(line.subscription.user) ??
      (unknown.length > 0 ? `groups: ${await unknownGroups(client, unknown)}` : undefined) ??
      credentialFaults.get(line.line);
    if (fault !== undefined) {
      bad.push({ line: line.line, fault });
      continue;
    }
    planLine(plan, line);
    good.push({ ...line.subscription, groupIds: [...new Set(idsOf(line))] });
  }
  return { good, bad };
}

/** Leaves out the lines that an earlier import has added. One whose external id comes twice is a fault. */
async function withoutKnown(
  client: pg.PoolClient,
  lines: readonly ImportLine[],
  plan: ImportPlan,
): Promise<ImportLine[]> {
  const given = lines.flatMap((line) => ('fault' in line ? [] : [line]));
  const knownOf = await findKnown(client, given);
  return lines.flatMap((line): ImportLine[] => {
    if ('fault' in line) return [line];
    const known = knownOf(line);
    if (known.is === 'new') return [line];
    const { externalId = '' } = line.subscription;
    if (known.is === 'twice') {
      const fault = `external_id: ${externalId} is on line ${known.firstLine}, too`;
      return [{ line: line.line, fault }];
    }
    plan.alreadyThere += 1;
    if (!known.hasSameCredential) {
      const note =
        'is there already, and has another credential: if it is somebody else, give --source';
      addNote(plan, line, { note, detail: `subscription ${known.subscriptionId}` });
    }
    return [];
  });
}

type GivenLine = Exclude<ImportLine, { fault: string }>;

function groupNames({ subscription }: GivenLine): readonly string[] {
  return subscription.groups ?? [defaultGroup];
}

async function userFaults(
  client: pg.PoolClient,
  users: readonly ImportedSubscription['user'][],
): Promise<(user: ImportedSubscription['user']) => string | undefined> {
  const known = await client.query<{ id: number }>(
    'SELECT id FROM users WHERE id = ANY ($1::bigint[]) FOR KEY SHARE',
    [users.flatMap((user) => ('id' in user ? [user.id] : []))],
  );
  const knownIds = new Set(known.rows.map((row) => row.id));
  const byName = await findUsers(client, users);
  return (user) => {
    if ('id' in user) {
      return knownIds.has(user.id) ? undefined : `user_id: there is no user ${user.id}`;
    }
    if ((byName.get(user.name)?.length ?? 0) < 2) return undefined;
    return `user: several users are called ${user.name}; give user_id instead`;
  };
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
