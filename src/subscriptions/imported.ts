import type { NewSubscription } from './create.ts';
import type { GivenLink } from './import-links.ts';

/** A subscription to add. The user is given by id or by name; an unknown name makes a new user. */
export type ImportedSubscription = Omit<NewSubscription, 'userId'> & {
  user: { id: number } | { name: string };
  /** Names; the default group if they are absent. */
  groups?: readonly string[] | undefined;
  /** Links with credentials from the file. All others have that of the subscription, or derived ones. */
  links?: readonly GivenLink[] | undefined;
};

/** Something that does not become exactly what it was. Lines with the same note are counted together. */
export interface ImportNote {
  note: string;
  /** What it is on this line. */
  detail?: string | undefined;
}

/** A line that can be imported. */
export interface GoodImportLine {
  line: number;
  subscription: ImportedSubscription;
  notes?: readonly ImportNote[] | undefined;
  /** How many links of client apps go on working. */
  linksKept?: number | undefined;
}

/** A line of an import, numbered from 1 as an editor does. */
export type ImportLine = GoodImportLine | { line: number; fault: string };
