import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { NodeConfig } from '../../src/contract/node-config.ts';
import { readIfThere, readJson, writeDurable } from '../../src/durable-file.ts';

export type ConfigStore = ReturnType<typeof openConfigStore>;

/**
 * The configurations that this node has been given, two files a revision: as Core sent it and as
 * the proxy reads it. The proxy's counters are accounted by the one that it was started with.
 */
export function openConfigStore(dataDir: string) {
  const dir = path.join(dataDir, 'configs');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const stateFile = path.join(dataDir, 'state.json');
  const proxyFile = (revision: number): string => path.join(dir, `${revision}.proxy.json`);
  let applied = readJson<{ applied: number }>(stateFile)?.applied;

  return {
    /** The revision that the node runs, as of its last successful apply. */
    applied: () => applied,
    /** Its file for the proxy; undefined where that revision has nothing to run. */
    appliedFile(): string | undefined {
      if (applied === undefined || readIfThere(proxyFile(applied)) === undefined) return undefined;
      return proxyFile(applied);
    },
    /** @returns the proxy's file. */
    save(config: NodeConfig, json: string): string {
      writeDurable(path.join(dir, `${config.revision}.node.json`), JSON.stringify(config));
      writeDurable(proxyFile(config.revision), json);
      return proxyFile(config.revision);
    },
    /** What a proxy file was made from, and the API port that it opens. */
    read(file: string): { config: NodeConfig; apiPort: number } {
      const config = readJson<NodeConfig>(file.replace(/\.proxy\.json$/, '.node.json'));
      const proxy = readJson<{ inbounds: { port: number }[] }>(file);
      const apiPort = proxy?.inbounds[0]?.port;
      if (config === undefined || apiPort === undefined) throw new Error(`${file} is not complete`);
      return { config, apiPort };
    },
    isSame: (file: string, json: string): boolean => readFileSync(file, 'utf8') === json,
    /** @param running the file that the proxy was started with, which is kept, too. */
    setApplied(revision: number, running: string | undefined): void {
      writeDurable(stateFile, JSON.stringify({ applied: revision }));
      applied = revision;
      const kept = new Set([String(revision), path.basename(running ?? '').split('.')[0]]);
      for (const name of readdirSync(dir)) {
        if (!kept.has(name.split('.')[0])) rmSync(path.join(dir, name));
      }
    },
  };
}
