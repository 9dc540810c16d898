import type { Command } from 'commander';
import QRCode from 'qrcode';
import { CoreError } from '../errors.ts';
import type { LinkReference } from '../subscriptions/links.ts';
import { rotateLink } from '../subscriptions/rotate.ts';
import { linkEffects } from '../subscriptions/show.ts';
import { showShareLinks } from '../subscriptions/show-link.ts';
import { id, uuid } from './arguments.ts';
import { confirm, yesOption } from './confirm.ts';
import type { Run } from './context.ts';
import { addLinkList } from './link-list.ts';

/** What fits a QR code with low error correction. */
const qrCharsMax = 2_953;

/** `core link …` */
export function addLinkCommands(program: Command, run: Run): void {
  const link = program
    .command('link')
    .description('Links: the access of a subscription to a protocol');
  addLinkList(link, run);
  addLinkShow(link, run);
  addLinkRotate(link, run);
}

interface Reference {
  subscription?: number;
  protocol?: number;
}

/** A link by its UUID, or by the ids of what it connects. */
function referenceOf(uuid: string | undefined, options: Reference): LinkReference {
  const { subscription, protocol } = options;
  if (uuid !== undefined && subscription === undefined && protocol === undefined) return { uuid };
  if (uuid === undefined && subscription !== undefined && protocol !== undefined) {
    return { subscriptionId: subscription, nodeProtocolId: protocol };
  }
  throw new CoreError(
    'INVALID_ARGUMENT',
    'Name the link by its UUID, or by both --subscription and --protocol',
  );
}

function withReference(command: Command): Command {
  return command
    .argument('[uuid]', 'UUID of the link', uuid)
    .option('--subscription <id>', 'in place of the UUID, with --protocol', id)
    .option('--protocol <id>', 'id of the protocol that the link leads to', id);
}

function addLinkShow(link: Command, run: Run): void {
  withReference(
    link.command('show').description('The share links for a client app, and their QR codes'),
  )
    .addHelpText(
      'after',
      `
A share link is a credential. A protocol with several public faces has one for each. The last lines
are other forms of the same links, for apps that do not read the first. With --json there is no QR code, nor
for a link of over 2,953 characters.

Examples:
  core link show 00000000-0000-8001-8000-00000000000c
  core link show --subscription 1 --protocol 12`,
    )
    .action(
      run(async (context, options: Reference, given: string | undefined) => {
        const pool = await context.postgres();
        const shown = await showShareLinks(pool, referenceOf(given, options));
        const { uris, otherUris, warnings } = shown;
        if (context.json) return context.print({ uri: uris[0], ...shown });
        // Low error correction is enough on a screen, and keeps the code of a long URI scannable.
        const code = { type: 'terminal', small: true, errorCorrectionLevel: 'L' } as const;
        for (const uri of uris) {
          context.print({ uri }, `${uri}\n\n`);
          if (uri.length > qrCharsMax) continue;
          await context.draw(`${await QRCode.toString(uri, code)}\n`);
        }
        if (otherUris.length > 0) context.print({ otherUris }, `${otherUris.join('\n')}\n`);
        for (const warning of warnings) context.note(`Warning: ${warning}\n`);
      }),
    );
}

function addLinkRotate(link: Command, run: Run): void {
  withReference(
    link.command('rotate').description('Give a link a new credential; the old one stops working'),
  )
    .option(...yesOption)
    .addHelpText(
      'after',
      `
Its UUID, by which traffic is counted, stays.

Examples:
  core link rotate 00000000-0000-8001-8000-00000000000c
  core link rotate --subscription 1 --protocol 12 --yes`,
    )
    .action(
      run(async (context, options: Reference & { yes?: boolean }, given: string | undefined) => {
        const pool = await context.postgres();
        const reference = referenceOf(given, options);
        const { uuid, userName, isActive } = await linkEffects(pool, reference);
        const inUse = isActive ? 'it is in use' : 'its subscription is not active';
        await confirm(context, {
          what: `Rotating link ${uuid} of ${userName}`,
          effects: [`ends the credential that clients have (${inUse})`],
          answer: 'yes',
          yes: options.yes,
        });
        context.print(await rotateLink(pool, reference));
      }),
    );
}
