import type { Fault, FleetNode } from './file.ts';
import type { PlanLine } from './plan-lines.ts';
import { withKeptSecrets } from './secrets.ts';
import type { StoredNode } from './state.ts';

type Path = readonly (string | number)[];

/** A node while `planFleet` plans it. The functions that plan its settings add to its lines and faults. */
export interface Planned {
  declared: FleetNode;
  /** Undefined if Core has no node of this name. */
  stored: StoredNode | undefined;
  /** The place of the node in the file. */
  path: Path;
  /** The groups that exist, and those that the file makes. */
  groups: ReadonlySet<string>;
  lines: PlanLine[];
  faults: Fault[];
}

/** Fills in the stored secrets. A marker becomes a fault if Core has no secret for it. */
export function keepSecrets<T>(planned: Planned, given: T, stored: T | undefined, path: Path): T {
  const missing = (inner: Path): void => {
    planned.faults.push({
      path: [...path, ...inner],
      message:
        'Is a secret that the file leaves out and Core does not have here; write it, or export it with --secrets',
    });
  };
  return withKeptSecrets(given, stored, missing) as T;
}
