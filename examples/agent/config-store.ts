import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { NodeConfig } from '../../src/contract/node-config.ts';
import { readIfThere, readJson, writeDurable } from '../../src/durable-file.ts';
import type { Link } from './account.ts';
import type { XrayConfig } from './xray-config.ts';

/** What is known of the running process beyond its configuration file. */
export interface Runtime {
  proxyId: string;
  /** The revision whose configuration the process has now: the API changes it without a restart. */
  revision: number;
  /**
   * True from before a change to after it. A process whose agent was killed meanwhile may have half of
   * the change.
   */
  isChanging: boolean;
  /** By UUID: links that the process had and that its revision does not have. Their counters go on. */
  former: Record<string, Link>;
  /** The UUIDs of removed links that a rule blocks in this process. */
  blocked: string[];
}

interface State {
  applied?: number;
}

export type ConfigStore = ReturnType<typeof openConfigStore>;

/** The configurations that Core has sent, two files per revision: as Core sent it, and as Xray reads it. */
export function openConfigStore(dataDir: string) {
  const dir = path.join(dataDir, 'configs');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const stateFile = path.join(dataDir, 'state.json');
  const runtimeFile = path.join(dataDir, 'runtime.json');
  const nodeFile = (revision: number): string => path.join(dir, `${revision}.node.json`);
  const proxyFile = (revision: number): string => path.join(dir, `${revision}.proxy.json`);
  let state: State = readJson<State>(stateFile) ?? {};

  return {
    /** The revision that was applied last. */
    applied: () => state.applied,
    /** The revision to run, and its file for Xray; undefined if it has nothing to run. */
    current(): { revision: number; file: string } | undefined {
      const revision = state.applied;
      if (revision === undefined || readIfThere(proxyFile(revision)) === undefined)
        return undefined;
      return { revision, file: proxyFile(revision) };
    },
    /** @returns the file for Xray, which there is only if `xray` is given. */
    save(config: NodeConfig, xray: XrayConfig | undefined): string {
      writeDurable(nodeFile(config.revision), JSON.stringify(config));
      if (xray !== undefined) writeDurable(proxyFile(config.revision), JSON.stringify(xray));
      return proxyFile(config.revision);
    },
    /** As Core sent it; undefined if it is not kept. */
    sent: (revision: number): NodeConfig | undefined => readJson<NodeConfig>(nodeFile(revision)),
    read(revision: number): { config: NodeConfig; xray: XrayConfig } {
      const config = readJson<NodeConfig>(nodeFile(revision));
      const xray = readJson<XrayConfig>(proxyFile(revision));
      if (config === undefined || xray === undefined) {
        throw new Error(`${proxyFile(revision)} is not complete`);
      }
      return { config, xray };
    },
    revisionOf: (file: string): number => Number(path.basename(file).split('.')[0]),
    runtime: (): Runtime | undefined => readJson<Runtime>(runtimeFile),
    setRuntime: (runtime: Runtime): void => writeDurable(runtimeFile, JSON.stringify(runtime)),
    /** @param running the file that the proxy was started with. It is kept, too. */
    setApplied(revision: number, running: string | undefined): void {
      const next: State = { applied: revision };
      writeDurable(stateFile, JSON.stringify(next));
      state = next;
      const kept = new Set([String(revision), path.basename(running ?? '').split('.')[0]]);
      for (const name of readdirSync(dir)) {
        if (!kept.has(name.split('.')[0])) rmSync(path.join(dir, name));
      }
    },
  };
}
