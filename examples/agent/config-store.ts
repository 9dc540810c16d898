import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { NodeConfig } from '../../src/contract/node-config.ts';
import { readIfThere, readJson, writeDurable } from '../../src/durable-file.ts';

export type ConfigStore = ReturnType<typeof openConfigStore>;

/**
 * The configurations that Core has sent, two files per revision: as Core sent it, and as the proxy reads
 * it. Counters belong to the configuration that their proxy was started with.
 */
export function openConfigStore(dataDir: string) {
  const dir = path.join(dataDir, 'configs');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const stateFile = path.join(dataDir, 'state.json');
  const proxyFile = (revision: number): string => path.join(dir, `${revision}.proxy.json`);
  let applied = readJson<{ applied: number }>(stateFile)?.applied;

  return {
    /** The revision of the last successful apply. */
    applied: () => applied,
    /** The proxy's file of that revision; undefined if the revision has nothing to run. */
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
    /** The configuration that a proxy file was made from, and the API port that the file opens. */
    read(file: string): { config: NodeConfig; apiPort: number } {
      const config = readJson<NodeConfig>(file.replace(/\.proxy\.json$/, '.node.json'));
      const proxy = readJson<{ inbounds: { port: number }[] }>(file);
      const apiPort = proxy?.inbounds[0]?.port;
      if (config === undefined || apiPort === undefined) throw new Error(`${file} is not complete`);
      return { config, apiPort };
    },
    isSame: (file: string, json: string): boolean => readFileSync(file, 'utf8') === json,
    /** @param running the file that the proxy was started with. It is kept, too. */
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
