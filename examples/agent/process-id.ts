import { readProcessIdentity } from '../../src/linux-processes.ts';

/**
 * `<pid>-<start time>-<boot id>`. Another process may get the same pid, but never the same three. Undefined
 * if there is no such process, or if it has ended and its parent has not waited for it yet. Linux only.
 */
export function processId(pid: number): string | undefined {
  const identity = readProcessIdentity(pid);
  if (identity === undefined || identity.state === 'dead') return undefined;
  return `${pid}-${identity.startTicks}-${identity.bootId}`;
}

export function isRunning(id: string): boolean {
  return processId(Number(id.split('-')[0])) === id;
}
