import type { Command } from 'commander';
import QRCode from 'qrcode';
import { listLinks, rotateLink } from '../subscriptions/links.ts';
import { linkEffects } from '../subscriptions/show.ts';
import { showShareLink } from '../subscriptions/show-link.ts';
import { id, uuid } from './arguments.ts';
import { confirm, yesOption } from './confirm.ts';
import type { Run } from './context.ts';
import { objectsText } from './table.ts';

/** `core link …` */
export function addLinkCommands(program: Command, run: Run): void {
  const link = program
    .command('link')
    .description('Links: the access of a subscription to a protocol');

  link
    .command('list')
    .description('Links of a subscription')
    .requiredOption('--subscription <id>', 'id of the subscription', id)
    .addHelpText('after', '\nExample:\n  core link list --subscription 1')
    .action(
      run(async (context, options: { subscription: number }) => {
        const found = await listLinks(await context.postgres(), options.subscription);
        const columns = ['nodeProtocolId', 'nodeId', 'protocol', 'uuid'];
        context.print(found, objectsText(found, columns, 'It has no links.'));
      }),
    );

  link
    .command('show')
    .description('The share link for a client app, and its QR code')
    .argument('<uuid>', 'UUID of the link', uuid)
    .addHelpText(
      'after',
      `
The share link is a credential. With --json there is no QR code.

Example:
  core link show 11111111-1111-4111-8111-111111111111`,
    )
    .action(
      run(async (context, _options, given: string) => {
        const uri = await showShareLink(await context.postgres(), given);
        if (context.json) return context.print({ uri });
        // Low error correction is enough on a screen, and keeps the code of a long URI scannable.
        const options = { type: 'terminal', small: true, errorCorrectionLevel: 'L' } as const;
        context.print({ uri }, `${uri}\n\n`);
        return context.draw(`${await QRCode.toString(uri, options)}\n`);
      }),
    );

  link
    .command('rotate')
    .description('Give a link a new UUID; the old one stops working')
    .argument('<uuid>', 'UUID of the link', uuid)
    .option(...yesOption)
    .addHelpText('after', '\nExample:\n  core link rotate 0c1d2e3f-0000-4000-8000-000000000000')
    .action(
      run(async (context, { yes }: { yes?: boolean }, given: string) => {
        const pool = await context.postgres();
        const { userName, activeSubscriptions } = await linkEffects(pool, given);
        const inUse = activeSubscriptions === 0 ? 'its subscription is not active' : 'it is in use';
        await confirm(context, {
          what: `Rotating link ${given} of ${userName}`,
          effects: [`ends the UUID that clients have (${inUse})`],
          answer: 'yes',
          yes,
        });
        context.print(await rotateLink(pool, given));
      }),
    );
}
