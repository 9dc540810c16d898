/**
 * Places where the fault suite may kill, pause or cut something: before and after every step that
 * an entry takes. Closed on purpose: a schedule names each of them.
 */
export const failpointNames = [
  'accept:before-append',
  'accept:after-append',
  'seal:before',
  'seal:after',
  'insert:before',
  // Between the last question to Postgres and the INSERT of a month.
  'insert:send',
  // Around the decision which rows of a poisoned segment are left out.
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
 * Failpoints for the fault suite: each asks `POST <url>/<role>/<name>` and waits for the answer,
 * for as long as that takes. Undefined without a URL, so that in production nothing is asked or
 * awaited. Where nobody listens any more the process goes on: its harness has ended.
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
      // Only the harness listens there, and it ends after the processes it started.
    }
  };
}
