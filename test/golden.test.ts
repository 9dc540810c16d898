import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { renderNodeConfigJson } from '../src/render/render.ts';
import { projectRoot } from '../src/root.ts';
import { goldenCases, goldenRows } from './support/golden-cases.ts';

const folder = path.join(projectRoot, 'test', 'golden');
/** CORE_WRITE_GOLDEN=1 rewrites the files; a reviewer then reads the difference. */
const rewrite = process.env['CORE_WRITE_GOLDEN'] === '1';

for (const given of goldenCases) {
  t.test(`${given.name} renders as it was reviewed`, async (t) => {
    const json = renderNodeConfigJson(goldenRows(given)).toString();
    const config: unknown = JSON.parse(json);
    t.equal(
      JSON.stringify(config),
      json,
      'what is written as text is JSON as JSON.stringify has it',
    );
    const file = path.join(folder, `${given.name}.json`);
    const pretty = `${JSON.stringify(config, null, 2)}\n`;
    if (rewrite) writeFileSync(file, pretty);
    t.equal(pretty, readFileSync(file, 'utf8'));
  });
}

t.test('every golden file has its case, and its page in the README', async (t) => {
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
  t.same(files.sort(), goldenCases.map((given) => `${given.name}.json`).sort());
  const page = readFileSync(path.join(folder, 'README.md'), 'utf8');
  for (const file of files) t.match(page, `| ${file} `, file);
});
