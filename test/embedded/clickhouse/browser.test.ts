import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import t, { type Test } from 'tap';
import { projectRoot } from '../../../src/root.ts';
import { openChromium } from '../../support/chromium.ts';
import { ask, connectClickHouse, startClickHouseServer } from '../../support/clickhouse-server.ts';

const pageScript = readFileSync(
  path.join(projectRoot, 'test', 'fixtures', 'attacking-page.js'),
  'utf8',
);
const foreign = 'evil.example';

/** Serves a page that has only its script. */
async function servePage(t: Test): Promise<number> {
  const server = http.createServer((_, response) => {
    const page = `<!doctype html><meta charset="utf-8"><body><script>${pageScript}</script>`;
    response.setHeader('Content-Type', 'text/html').end(page);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

t.test('a page in Chromium can neither write nor read, not even with the password', async (t) => {
  const server = await startClickHouseServer(t, t.testdir());
  const client = connectClickHouse(t, server);
  await client.command({ query: 'CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a' });
  const pagePort = await servePage(t);
  const browser = await openChromium(t, [foreign]);
  const login = `user=core&password=${encodeURIComponent(server.passwords.core)}`;
  const target = (query: string) => `/?${login}&query=${encodeURIComponent(query)}`;
  const read = target("SELECT 'result'");
  const script = target("SELECT 'window.leak = 1' FORMAT TSVRaw");
  const rows = async () => (await ask(server, target('SELECT count() FROM t'))).text;

  for (const [page, port] of [
    [`127.0.0.1:${pagePort}`, `127.0.0.1:${server.port}`],
    [`localhost:${pagePort}`, `127.0.0.1:${server.port}`],
    [`${foreign}:${pagePort}`, `127.0.0.1:${server.port}`],
    [`${foreign}:${pagePort}`, `${foreign}:${server.port}`],
  ] as const) {
    t.test(`${page} asks ${port}`, async (t) => {
      const tab = await browser.newPage();
      const seen: number[] = [];
      tab.on('response', (response) => {
        if (new URL(response.url()).host === port) seen.push(response.status());
      });
      await tab.goto(`http://${page}/`);
      const urls = {
        read: `http://${port}${read}`,
        script: `http://${port}${script}`,
        write: `http://${port}/?${login}`,
        root: `http://core:${server.passwords.core}@${port}${target('SELECT 2')}`,
      };
      const learnt = await tab.evaluate(`attack(${JSON.stringify(urls)})`);
      t.same(learnt, [], 'the page got to know nothing');
      t.ok(seen.length >= 8, `${seen.length} requests came to the port`);
      t.same(new Set(seen), new Set([403]), 'and each was refused');
      // A link, which sends no Origin, and a page that the browser shows from the port itself.
      const [answer] = await Promise.all([
        tab.waitForNavigation(),
        tab.evaluate(`follow(${JSON.stringify(urls.read)})`),
      ]);
      t.equal(answer?.status(), 403, 'a link');
      t.notMatch(await tab.content(), /result/);
      t.equal(await rows(), '0\n', 'nothing was written');
      await tab.close();
    });
  }

  t.test('the same requests work outside a browser', async (t) => {
    t.equal((await ask(server, read)).text, 'result\n');
    const body = 'INSERT INTO t VALUES (7) -- = x';
    t.equal((await ask(server, `/?${login}`, { method: 'POST', body })).status, 200);
    t.equal(await rows(), '1\n');
  });
});
