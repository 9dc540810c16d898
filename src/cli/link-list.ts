import type { Command } from 'commander';
import type { Connection } from '../client-apps/connection.ts';
import { misreadings } from '../client-apps/misread-links.ts';
import { shareLink } from '../client-apps/share-link.ts';
import { CoreError, toCoreError } from '../errors.ts';
import { type Link, withoutSecret } from '../subscriptions/links.ts';
import { connectionsOfLink } from '../subscriptions/show-link.ts';
import { type LinksOf, streamLinks } from '../subscriptions/stream-links.ts';
import { groupName, id } from './arguments.ts';
import type { CliContext, Run } from './context.ts';
import { type Cell, type ColumnPlan, formatRows, planColumns } from './table.ts';

// `core link list`. It prints links while it reads them, since a fleet may have more than fit into memory.

interface ListOptions {
  subscription?: number;
  user?: number;
  group?: string;
  all?: boolean;
  uri?: boolean;
}

export function addLinkList(link: Command, run: Run): void {
  link
    .command('list')
    .description('Links of a subscription, a user, a group, or all')
    .option('--subscription <id>', 'id of the subscription', id)
    .option('--user <id>', 'of all subscriptions of this user', id)
    .option('--group <name>', 'of all subscriptions in this group', groupName)
    .option('--all', 'of all subscriptions')
    .option('--uri', 'the share links for client apps, which are credentials')
    .addHelpText(
      'after',
      `
With --uri there is a line for each share link. If the links are not those of one subscription, the id of the
subscription and a space come before each.

Examples:
  core link list --subscription 1
  core link list --subscription 1 --uri
  core link list --group premium --uri
  core link list --all --uri --json`,
    )
    .action(
      run(async (context, options: ListOptions) => {
        const of = linksOf(options);
        return options.uri === true ? printShareLinks(context, of) : printLinks(context, of);
      }),
    );
}

function linksOf({ subscription, user, group, all }: ListOptions): LinksOf {
  const given: LinksOf[] = [];
  if (subscription !== undefined) given.push({ subscriptionId: subscription });
  if (user !== undefined) given.push({ userId: user });
  if (group !== undefined) given.push({ group });
  if (all === true) given.push('all');
  const [of] = given;
  if (of !== undefined && given.length === 1) return of;
  const message = 'Say whose links: give one of --subscription, --user, --group and --all';
  throw new CoreError('INVALID_ARGUMENT', message);
}

const columns = ['nodeProtocolId', 'nodeId', 'protocol', 'uuid'] as const;

async function printLinks(context: CliContext, of: LinksOf): Promise<void> {
  const shown = isOfOne(of) ? columns : (['subscriptionId', ...columns] as const);
  let plan: ColumnPlan[] | undefined;
  await eachPart(context, of, async (links) => {
    const listed = links.map(withoutSecret);
    if (context.json) return listed;
    const rows = listed.map((link): Cell[] => shown.map((column) => link[column]));
    const heading = plan === undefined ? shown : undefined;
    // The widths come from the first part. The ids of later ones may be wider.
    plan ??= planColumns(shown, rows);
    await context.write(formatRows(plan, rows, heading));
    return [];
  });
  if (plan === undefined && !context.json) await context.write(noneText(of, 'links'));
}

/** One line for each share link on stdout, and nothing else: apps take the list of one subscription. */
async function printShareLinks(context: CliContext, of: LinksOf): Promise<void> {
  const notes: Notes = { placeless: new Set(), faulty: new Map(), warnings: new Set() };
  let hasPrinted = false;
  await eachPart(context, of, async (links) => {
    const found = links.map((link) => ({
      ...withoutSecret(link),
      uris: connectionsWithNotes(link, notes).map(shareLink),
    }));
    if (context.json) return found;
    const lines = found.flatMap(({ subscriptionId, uris }) =>
      uris.map((uri) => (isOfOne(of) ? `${uri}\n` : `${subscriptionId} ${uri}\n`)),
    );
    hasPrinted ||= lines.length > 0;
    await context.write(lines.join(''));
    return [];
  });
  if (context.json) return;
  if (!hasPrinted) await context.write(noneText(of, 'share links'));
  note(context, notes);
}

/**
 * Reads the links part by part, and does something with each before it reads the next. What the work returns
 * becomes elements of the one JSON array.
 */
async function eachPart(
  context: CliContext,
  of: LinksOf,
  work: (links: readonly Link[]) => Promise<readonly object[]>,
): Promise<void> {
  let opening = '[';
  for await (const links of streamLinks(await context.postgres(), of)) {
    const values = await work(links);
    if (!context.json) continue;
    await context.write(opening + values.map((value) => JSON.stringify(value)).join(','));
    opening = ',';
  }
  if (context.json) await context.write(opening === '[' ? '[]\n' : ']\n');
}

function isOfOne(of: LinksOf): boolean {
  return of !== 'all' && 'subscriptionId' in of;
}

function noneText(of: LinksOf, what: string): string {
  return isOfOne(of) ? `It has no ${what}.\n` : `There are no ${what}.\n`;
}

/** What the operator should know besides. */
interface Notes {
  /** Nodes without an address. */
  placeless: Set<number>;
  /** By protocol, what is wrong with its settings. */
  faulty: Map<number, string>;
  warnings: Set<string>;
}

const warningsMax = 20;

/** How client apps connect by a link. A protocol that cannot be said must not end the list of all others. */
function connectionsWithNotes(link: Link, notes: Notes): Connection[] {
  try {
    const connections = connectionsOfLink(link);
    if (connections.length === 0) notes.placeless.add(link.nodeId);
    for (const warning of connections.flatMap(misreadings)) {
      if (notes.warnings.size < warningsMax) notes.warnings.add(warning);
    }
    return connections;
  } catch (thrown) {
    const { code, message } = toCoreError(thrown);
    if (code !== 'INVALID_ARGUMENT') throw thrown;
    notes.faulty.set(link.nodeProtocolId, message);
    return [];
  }
}

function note(context: CliContext, { placeless, faulty, warnings }: Notes): void {
  const [node] = placeless;
  if (node !== undefined) {
    context.note(
      `Left out: links on nodes that have no host or address yet (${named([...placeless])}). Register them, or give them a host: core node set ${node} --host NAME\n`,
    );
  }
  const [first] = faulty;
  if (first !== undefined) {
    context.note(
      `Left out: links to protocols with incomplete settings (${named([...faulty.keys()])}). Protocol ${first[0]}: ${first[1]}\n`,
    );
  }
  for (const warning of warnings) context.note(`Warning: ${warning}\n`);
}

/** How many ids a message names. */
const idsNamedMax = 10;

function named(ids: readonly number[]): string {
  const rest = ids.length - idsNamedMax;
  return ids.slice(0, idsNamedMax).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}
