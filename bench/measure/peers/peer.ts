import type { Lifecycle } from '../../../src/lifecycle.ts';
import type { EntryFormat } from '../bodies.ts';
import type { BenchOptions, Check } from '../metric.ts';
import type { WrkPlan } from '../wrk.ts';

/** A program that can take the entries instead of Core. */
export interface Peer {
  name: string;
  /** The promises of Core that it does not keep, or keeps in another way. The notes print it. */
  caveat: string;
  /** What has to be installed first; undefined if nothing is missing. */
  missing(): string | undefined;
  /** Starts it empty, in a temporary folder. `lifecycle` stops it and removes everything. */
  open(lifecycle: Lifecycle, options: BenchOptions): Promise<OpenPeer>;
}

export interface OpenPeer {
  target: Pick<WrkPlan, 'url' | 'path' | 'headers'>;
  format: EntryFormat;
  /** A new series costs it more than a known one, so the warm-up sends every body once. */
  hasSeries?: boolean;
  /** Entries in its storage, counted there and not derived from its answers. */
  countStored(): Promise<number>;
  /** Largest share of the entries that it overwrites because it takes two of them for one. */
  overwrittenShareMax: number;
  /** One more check of what it stored. */
  check?(): Promise<Omit<Check, 'bench'>>;
}

/** What one peer reached at one batch size in one round. */
export interface Rate {
  name: string;
  entries: number;
  entriesPerSecond: number;
}

/** The result of one peer's turn. */
export interface Turn {
  rates: Rate[];
  checks: Check[];
}
