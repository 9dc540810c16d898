import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { readIfThere, readJson, writeDurable } from '../../src/durable-file.ts';
import { type ClientOptions, createClient } from './client.ts';
import { isRunning, processId } from './process-id.ts';
import type { Settings } from './settings.ts';

/** How Core knows this node: `identity.json`, which only its owner can read. */
export interface Identity {
  nodeId: number;
  authKey: string;
}

/**
 * Reads the identity from the data directory, or gets a new one from Core for the registration code.
 * @throws Error that says what is needed.
 */
export async function loadOrRegister(
  settings: Settings,
  options: ClientOptions,
): Promise<{ identity: Identity; isNew: boolean }> {
  const file = path.join(settings.dataDir, 'identity.json');
  const known = readJson<Identity>(file);
  if (known !== undefined) return { identity: known, isNew: false };
  const { code, name, host, ip, region } = settings;
  if (code === undefined) {
    throw new Error(
      `${settings.dataDir} holds no key: start with --code and the code from core node create`,
    );
  }
  const answer = await createClient(options).register({ code, name, host, ip, region });
  if (answer.kind === 'refused') {
    throw new Error(
      `Core refused the registration: ${answer.code} ${answer.message}. Get a new code with core node rekey`,
    );
  }
  if (answer.kind !== 'ok') {
    const reason = answer.kind === 'away' ? answer.reason : answer.kind;
    throw new Error(
      `${new URL(options.url).origin} did not answer the registration (${reason}). Check that Core listens there (--url) and start again; if Core then refuses the code, get a new one with core node rekey`,
    );
  }
  const identity = { nodeId: answer.value.nodeId, authKey: answer.value.authKey };
  writeDurable(file, JSON.stringify(identity));
  return { identity, isNew: true };
}

/**
 * Locks the data directory, because two agents on it would count everything twice.
 * @throws Error if another agent runs on it.
 */
export function claimDataDir(dataDir: string): { release(): void } {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const file = path.join(dataDir, 'agent.lock');
  const own = processId(process.pid);
  if (own === undefined) throw new Error('The agent needs /proc, which only Linux has');
  const holder = readIfThere(file);
  if (holder !== undefined && isRunning(holder)) {
    throw new Error(`Another agent (process ${holder.split('-')[0]}) runs on ${dataDir}`);
  }
  writeDurable(file, own);
  return { release: () => rmSync(file, { force: true }) };
}
