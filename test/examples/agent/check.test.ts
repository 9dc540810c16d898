import { once } from 'node:events';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import t, { type Test } from 'tap';
import { checkMachine } from '../../../examples/agent/check.ts';
import type { Settings } from '../../../examples/agent/settings.ts';
import { registerTestNode, startTestApi } from '../../support/api.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';

const settingsOf = (t: Test, given: Partial<Settings>): Settings =>
  ({
    ...{ url: 'http://127.0.0.1:1', dataDir: scratchFolder(t), xray: 'no-such-program' },
    ...{ spoolBytesMax: 1_000 },
    ...given,
  }) as Settings;

const textOf = async (settings: Settings): Promise<string> =>
  (await checkMachine(settings)).map(({ level, text }) => `${level} ${text}`).join('\n');

/** A program that prints this, as Xray prints its version. */
function programThatPrints(t: Test, text: string): string {
  const file = path.join(scratchFolder(t), 'xray');
  writeFileSync(file, `#!/bin/sh\necho '${text}'\n`);
  chmodSync(file, 0o755);
  return file;
}

t.test('a program that is missing, is not Xray, or is too old', async (t) => {
  t.match(await textOf(settingsOf(t, {})), /fault no program no-such-program: install Xray-core/);
  const versionSaid = async (text: string) =>
    textOf(settingsOf(t, { xray: programThatPrints(t, text) }));
  t.match(await versionSaid('hello'), /fault \S+ does not run: \S+ is not Xray: hello/);
  t.match(
    await versionSaid('Xray 25.12.8 (Xray, Penetrates Everything.)'),
    /fault Xray 25\.12\.8 \S+ is too old: install 26\.3\.27 or a later version/,
  );
  t.match(await versionSaid('Xray 26.3.27 (x)'), /warning Xray 26\.3\.27.*before 26\.4\.13/);
  t.match(await versionSaid('Xray 26.7.28 (x)'), /^ok Xray 26\.7\.28/);
});

t.test('a data directory that cannot be written to, and a disk with too little room', async (t) => {
  const file = path.join(scratchFolder(t), 'file');
  writeFileSync(file, '');
  t.match(await textOf(settingsOf(t, { dataDir: file })), /fault the folder \S+ cannot be written/);
  const dataDir = scratchFolder(t);
  writeFileSync(path.join(dataDir, 'spool'), '');
  t.match(
    await textOf(settingsOf(t, { dataDir })),
    /fault the folder \S+\/spool cannot be written to: EEXIST/,
    'a folder in it, too',
  );
  const large = settingsOf(t, { spoolBytesMax: 1e15 });
  t.match(
    await textOf(large),
    /warning \d+ MB are free for \S+, .* may take 1000000000 MB: make room/,
  );
});

t.test('Core: away, no code yet, a key that it refuses, and one that it takes', async (t) => {
  t.match(await textOf(settingsOf(t, {})), /fault http:\/\/127\.0\.0\.1:1 does not answer.*--url/);
  const api = await startTestApi(t);
  const { url } = api;
  t.match(
    await textOf(settingsOf(t, { url })),
    /ok the clock agrees with that of Core\nfault not reg/,
  );
  const withKey = (identity: object): Settings => {
    const settings = settingsOf(t, { url });
    writeFileSync(path.join(settings.dataDir, 'identity.json'), JSON.stringify(identity));
    return settings;
  };
  const { nodeId, authKey } = await registerTestNode(api);
  t.match(await textOf(withKey({ nodeId, authKey })), /ok the key of node 1 is valid/);
  t.match(
    await textOf(withKey({ nodeId, authKey: 'another' })),
    /fault Core refuses the key: \w+ .*core node rekey, and remove identity\.json/,
  );
});

t.test('a clock that is off from that of Core', async (t) => {
  const server = http.createServer((_, response) => {
    response.setHeader('Date', new Date(Date.now() - 3_600_000).toUTCString()).end('{"ok":true}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const url = `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  t.match(
    await textOf(settingsOf(t, { url })),
    /fault the clock is 3\d\d\d s off from that of Core/,
  );
});

t.test("a port of the stored configuration, and that of Xray's API, are taken", async (t) => {
  const taken = net.createServer();
  taken.listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.teardown(() => taken.close());
  const { port } = taken.address() as net.AddressInfo;
  const settings = settingsOf(t, {});
  const configs = path.join(settings.dataDir, 'configs');
  mkdirSync(configs);
  const write = (name: string, content: object): void =>
    writeFileSync(path.join(settings.dataDir, name), JSON.stringify(content));
  write('state.json', { applied: 1 });
  write('configs/1.node.json', { revision: 1 });
  const inbound = { tag: 'in-5', protocol: 'vless', listen: '127.0.0.1', port };
  write('configs/1.proxy.json', { inbounds: [inbound], api: { listen: `127.0.0.1:${port}` } });
  const text = await textOf(settings);
  t.match(text, new RegExp(`fault port ${port} of in-5 cannot be opened: .*EADDRINUSE`));
  t.match(text, /fault the port of Xray's API cannot be opened: .*EADDRINUSE.*--api-port/);
});
