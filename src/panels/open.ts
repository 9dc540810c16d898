import { limits } from '../contract/limits.ts';
import type { ImportLine } from '../subscriptions/imported.ts';
import { hiddenFault } from '../text.ts';
import type { PanelFile } from './account.ts';
import {
  type AssignOptions,
  assignAccount,
  assignInbounds,
  type InboundTarget,
  type ServedProtocol,
} from './assign.ts';
import { openMarzban } from './marzban.ts';
import { openRemnawave } from './remnawave.ts';
import { openThreeXUi } from './three-x-ui.ts';

/** The panels whose files Core reads. */
export const panels = ['marzban', '3x-ui', 'remnawave'] as const;
export type Panel = (typeof panels)[number];

/**
 * Opens a file of a panel.
 * @throws CoreError INVALID_ARGUMENT if it is none.
 */
export function openPanel(panel: Panel, file: string): Promise<PanelFile> {
  return { marzban: openMarzban, '3x-ui': openThreeXUi, remnawave: openRemnawave }[panel](file);
}

/** A file of a panel, with what Core makes of it. */
export interface PanelImport {
  inbounds: InboundTarget[];
  lines: () => AsyncGenerator<ImportLine>;
}

/**
 * Turns the accounts of a panel into subscriptions.
 * @param source begins the external ids, so that a repeated import finds what is there already.
 * @throws CoreError INVALID_ARGUMENT for options that do not fit the file.
 */
export function importPanel(
  panel: PanelFile,
  source: string,
  served: readonly ServedProtocol[],
  options: AssignOptions,
): PanelImport {
  const inbounds = assignInbounds(panel.inbounds, served, options.maps);
  const targets = new Map<string, ServedProtocol[]>();
  for (const { inbound, protocols } of inbounds) {
    targets.set(inbound.label, [...(targets.get(inbound.label) ?? []), ...protocols]);
  }
  async function* lines(): AsyncGenerator<ImportLine> {
    for await (const read of panel.accounts()) {
      if ('fault' in read) {
        const fault = read.name === undefined ? read.fault : `${read.name}: ${read.fault}`;
        yield { line: read.place, fault };
        continue;
      }
      const { account, place } = read;
      const nameFault = faultOfName(account.name);
      if (nameFault !== undefined) {
        yield {
          line: place,
          fault: `${account.name}: its name ${nameFault}: rename it in the panel`,
        };
        continue;
      }
      const { credential, links, groups, kept, notes } = assignAccount(
        account,
        served,
        targets,
        options,
      );
      const subscription = {
        user: { name: account.name },
        trafficLimitBytes: account.limitBytes,
        usedBytes: account.usedBytes,
        expiresAt: account.expiresAt,
        durationSeconds: account.durationSeconds,
        resetPeriod: account.resetPeriod,
        anchorAt: account.anchorAt,
        disabled: account.disabled,
        externalId: `${source}:${account.name}`,
        credential: credential ?? null,
        links,
        groups,
      };
      yield { line: place, subscription, notes: [...account.notes, ...notes], linksKept: kept };
    }
  }
  return { inbounds, lines };
}

/** Users of Core have the same bounds, whoever adds them. */
function faultOfName(name: string): string | undefined {
  if (name.trim() === '') return 'is empty';
  if (name.length > limits.nameCharsMax) return `has over ${limits.nameCharsMax} characters`;
  return hiddenFault(name)?.replace(/^Must/, 'must');
}
