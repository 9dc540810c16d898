/**
 * Places at which the fault suite may kill, pause or cut something: before and after every step of an
 * entry. The list is closed, because a schedule of the suite names each of them.
 */
export const failpointNames = [
  'accept:before-append',
  'accept:after-append',
  'seal:before',
  'seal:after',
  'insert:before',
  // Between the last query to Postgres and the INSERT of a month.
  'insert:send',
  // Before and after the decision which rows of a poisoned segment are rejected.
  'reject:before',
  'reject:after',
  'insert:after',
  'settle:before',
  'settle:before-commit',
  'settle:after',
  'trim:before',
  'trim:after',
] as const;
export type FailpointName = (typeof failpointNames)[number];

/** Called at each failpoint; the step goes on once it has resolved. */
export type Failpoint = (name: FailpointName) => Promise<void> | void;

/**
 * Failpoints for the fault suite: each sends `POST <url>/<role>/<name>` and waits for the answer, for as
 * long as that takes. Undefined without a URL, so that production sends and awaits nothing. If nobody
 * listens any more, the harness has ended and the process goes on.
 */
export function createFailpoint(
  url: string | undefined,
  role: 'api' | 'worker',
): Failpoint | undefined {
  if (url === undefined) return undefined;
  const base = `${url.replace(/\/$/, '')}/${role}`;
  return async (name) => {
    try {
      const answer = await fetch(`${base}/${name}`, { method: 'POST' });
      await answer.arrayBuffer();
    } catch {
      // The harness has ended: only it listens there.
    }
  };
}
