import type { VpnProtocol } from '../contract/enums.ts';
import type { ImportNote } from '../subscriptions/imported.ts';
import type { ResetPeriod } from '../subscriptions/period.ts';

/** What a client app of the account holds, and where. */
export interface PanelCredential {
  protocol: VpnProtocol;
  /** As the client app holds it, byte for byte. */
  credential: string;
  /** Flow of VLESS as the client app has it; undefined: none. */
  flow?: string | undefined;
  /** Of Shadowsocks. */
  method?: string | undefined;
  serverKey?: string | undefined;
  /** Label of the one inbound that it is for; undefined: it is for all of the protocol. */
  inbound?: string | undefined;
}

export type Note = ImportNote;

/** An account of another panel. It becomes a subscription. */
export interface PanelAccount {
  /** What the panel tells its accounts apart by, and what the user in Core is called. */
  name: string;
  /** Null: none. */
  limitBytes: number | null;
  /** Of the current period. */
  usedBytes: number;
  /** Null: never, or not started. */
  expiresAt: Date | null;
  durationSeconds?: number | undefined;
  resetPeriod: ResetPeriod;
  anchorAt?: Date | undefined;
  disabled: boolean;
  credentials: PanelCredential[];
  /** Inbounds, squads and groups that the account is in, by their names in the panel. */
  labels: string[];
  notes: Note[];
}

/** An account by its place in the file, from 1, or what is wrong with it. */
export type AccountLine =
  | { place: number; account: PanelAccount }
  | { place: number; name: string | undefined; fault: string };

/** An inbound of a panel. */
export interface PanelInbound {
  /** How `--map` names it. */
  label: string;
  protocol: string;
  port: number;
  enabled: boolean;
}

/** A file of a panel, open. */
export interface PanelFile {
  /** Empty if the file does not say which inbounds there are. */
  inbounds: PanelInbound[];
  /** What the operator has to know of the file as a whole. */
  warnings: string[];
  /** Reads all accounts. It may be called again. */
  accounts: () => AsyncIterable<AccountLine>;
  close: () => Promise<void>;
}

/** What a panel says of access: Core derives the same, or the account becomes disabled. */
export function accessOf(
  given: {
    status: 'active' | 'disabled' | 'limited' | 'expired';
    limitBytes: number | null;
    usedBytes: number;
    expiresAt: Date | null;
  },
  nowMs: number,
): { disabled: boolean; notes: Note[] } {
  const { status, limitBytes, usedBytes, expiresAt } = given;
  if (status === 'disabled') return { disabled: true, notes: [] };
  const isOver = limitBytes !== null && usedBytes >= limitBytes;
  const isPast = expiresAt !== null && expiresAt.getTime() <= nowMs;
  if (status === 'active' || isOver || isPast) return { disabled: false, notes: [] };
  const why = status === 'limited' ? 'its use is under its limit' : 'its expiry is not in the past';
  return { disabled: true, notes: [{ note: `${status} in the panel, but ${why}: disabled` }] };
}
