import type { Lifecycle } from '../../../src/lifecycle.ts';
import type { EntryFormat } from '../bodies.ts';
import type { BenchOptions, Check } from '../metric.ts';
import type { WrkPlan } from '../wrk.ts';

/** Something that can take the entries in instead of Core. */
export interface Peer {
  name: string;
  /** What of Core's promises it does not keep, or keeps in another way; for the notes. */
  caveat: string;
  /** What has to be installed first; undefined where nothing is missing. */
  missing(): string | undefined;
  /** Starts it, empty, in a temporary folder. `lifecycle` stops it and removes everything. */
  open(lifecycle: Lifecycle, options: BenchOptions): Promise<OpenPeer>;
}

export interface OpenPeer {
  target: Pick<WrkPlan, 'url' | 'path' | 'headers'>;
  format: EntryFormat;
  /** A series costs it more the first time: it is warmed until every body has come once. */
  hasSeries?: boolean;
  /** Entries that it holds, asked of its storage and not of what it remembers to have answered. */
  countStored(): Promise<number>;
  /** Share of the entries that it may overwrite because two of them look like one to it. */
  overwrittenShareMax: number;
  /** More that has to be true of what it stored. */
  check?(): Promise<Omit<Check, 'bench'>>;
}

/** What one peer reached at one batch size in one round. */
export interface Rate {
  name: string;
  entries: number;
  entriesPerSecond: number;
}

/** What a turn of one peer hands back. */
export interface Turn {
  rates: Rate[];
  checks: Check[];
}
