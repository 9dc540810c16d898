import type { AppLink } from './app-link.ts';
import type { Cell, ClientName } from './cells.ts';
import type { Certificate } from './certificate.ts';
import type { ConformanceCore } from './core.ts';
import type { Program } from './programs.ts';
import type { Door } from './site.ts';

/** The step at which a cell failed; docs.ts says what each letter means. */
export type Letter = 'a' | 'b' | 'u' | 'c' | 'd';

/** What a cell came to. The letter is that of the first step that failed. */
export type Outcome =
  | { kind: 'ok' }
  | { kind: 'failed'; letter: Letter; reason: string }
  /** It fails as the known gap of this number says. */
  | { kind: 'gap'; letter: Letter; gap: number }
  | { kind: 'missing'; reason: string };

export interface CellResult {
  cell: string;
  client: ClientName;
  xray: string;
  outcome: Outcome;
}

/** What a run of one version needs. All programs are there, and Core runs. */
export interface Bench {
  core: ConformanceCore;
  folder: string;
  certificate: Certificate;
  open: (over: 'plain' | 'tls') => Promise<Door>;
  clients: readonly { name: ClientName; program: Program }[];
  say: (line: string) => void;
}

/** One cell with one client, and how far it has come. */
export interface Trial {
  cell: Cell;
  client: ClientName;
  nodeProtocolId: number;
  subscriptionId: number;
  uuid: string;
  link: AppLink;
  door: Door;
  seed: number;
  outcome: Outcome;
}

/** The trials that have not failed so far. */
export function open(trials: readonly Trial[]): Trial[] {
  return trials.filter(({ outcome }) => outcome.kind === 'ok');
}

/** The first failure of a trial stays. */
export function fail(trial: Trial, letter: Letter, reason: string): void {
  if (trial.outcome.kind === 'ok') trial.outcome = { kind: 'failed', letter, reason };
}
