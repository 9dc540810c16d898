import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import type { NodeConfig } from '../../src/contract/node-config.ts';
import { renderNodeConfigJson } from '../../src/render/render.ts';
import { projectRoot } from '../../src/root.ts';
import { goldenCases, goldenRows } from '../support/golden-cases.ts';

const folder = path.join(projectRoot, 'test', 'golden');
/** CORE_WRITE_GOLDEN=1 rewrites the files, for a person to review the difference. */
const rewrite = process.env['CORE_WRITE_GOLDEN'] === '1';

for (const given of goldenCases) {
  t.test(`${given.name} renders to the reviewed file`, async (t) => {
    const json = renderNodeConfigJson(goldenRows(given)).toString();
    const config: unknown = JSON.parse(json);
    t.equal(JSON.stringify(config), json, 'the renderer writes the same JSON as JSON.stringify');
    const file = path.join(folder, `${given.name}.json`);
    const pretty = `${JSON.stringify(config, null, 2)}\n`;
    if (rewrite) writeFileSync(file, pretty);
    t.equal(pretty, readFileSync(file, 'utf8'));
  });
}

t.test('docs/protocols.md shows the inbounds of the golden files', async (t) => {
  const page = readFileSync(path.join(projectRoot, 'docs', 'protocols.md'), 'utf8');
  const shown = [
    ...page.matchAll(/<!-- inbound of test\/golden\/(\S+) -->\n\n```json\n(.*?)```/gs),
  ];
  t.same(
    shown.map(([, file]) => goldenCases.find((given) => `${given.name}.json` === file)?.protocol),
    ['VLESS', 'TROJAN', 'VMESS', 'SHADOWSOCKS', 'HYSTERIA2', 'MTPROTO'],
  );
  for (const [, file = '', json = ''] of shown) {
    const { services } = JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as NodeConfig;
    const inbounds: unknown[] = services.xray?.inbounds ?? services.mtproto?.inbounds ?? [];
    t.strictSame(JSON.parse(json), inbounds[0], file);
  }
});

t.test('every golden file has its case, and its row in the README', async (t) => {
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
  t.same(files.sort(), goldenCases.map((given) => `${given.name}.json`).sort());
  const page = readFileSync(path.join(folder, 'README.md'), 'utf8');
  for (const file of files) t.match(page, `| ${file} `, file);
});
