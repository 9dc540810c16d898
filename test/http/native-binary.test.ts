import { cpSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { requireHttpBinary } from '../../src/http/native-binary.ts';
import { projectRoot } from '../../src/root.ts';

const { platform, arch, versions } = process;
const own = `uws_${platform}_${arch}_${versions.modules}.node`;

t.test('the HTTP server has a binary for this Node', async (t) => {
  requireHttpBinary();
  t.pass('it loads');
});

t.test('a Node without a binary is refused in one line', async (t) => {
  const copy = t.testdir({ empty: {} });
  const installed = path.join(projectRoot, 'node_modules', 'uWebSockets.js', 'binaries');
  cpSync(installed, path.join(copy, 'binaries'), { recursive: true });
  rmSync(path.join(copy, 'binaries', own));
  const message = `Core needs Node 20; this is ${versions.node}: the HTTP server has no binary for it (${platform} ${arch}, ABI ${versions.modules}; there are binaries for ABI `;
  const refused = (folder: string, why: RegExp): void => {
    try {
      requireHttpBinary(folder);
      t.fail('it was taken');
    } catch (thrown) {
      t.match(thrown, { code: 'NODE_UNSUPPORTED', message: why });
      t.notMatch((thrown as Error).message, '\n');
    }
  };
  refused(copy, new RegExp(`^${message.replace(/[().]/g, '\\$&')}\\d`));
  refused(path.join(copy, 'empty'), /ABI none\)$/);

  // As on a system with another C library: the binary exists but cannot be loaded.
  writeFileSync(path.join(copy, 'binaries', own), 'not a library');
  refused(copy, /has no binary for it .*(file too short|invalid ELF header|not a)/);
});
