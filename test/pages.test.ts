import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { projectRoot } from '../src/root.ts';

const folders = ['src', 'test', 'bench', 'docs', 'assembly', 'examples', 'deploy', 'scripts'];
const stores = ['redis', 'postgres', 'clickhouse'];

const read = (name: string): string => readFileSync(path.join(projectRoot, name), 'utf8');

/** The files at the root of the project and in its folders, as paths from the root. */
const files = [
  ...readdirSync(projectRoot).filter((name) => /\.(md|ts|mjs|yml|json)$/.test(name)),
  ...[...folders, ...stores].flatMap((folder) =>
    readdirSync(path.join(projectRoot, folder), { recursive: true, encoding: 'utf8' }).map((name) =>
      path.join(folder, name),
    ),
  ),
];
// What the changelog says of an older version was true then.
const pages = files.filter((name) => name.endsWith('.md') && name !== 'CHANGELOG.md');
const code = files.filter((name) => /\.(ts|mjs|lua)$/.test(name));

const pathIn = new RegExp(`\`((?:${[...folders, ...stores].join('|')})/[\\w./*-]*)\``, 'g');

t.test('every file and folder that a page names in code style is there', async (t) => {
  let named = 0;
  for (const page of pages) {
    for (const [, name = ''] of read(page).matchAll(pathIn)) {
      if (name.includes('*')) continue;
      named += 1;
      if (!existsSync(path.join(projectRoot, name))) t.fail(`${page} names ${name}`);
    }
  }
  t.ok(named > 50, `${named} names were looked up`);
});

t.test('every link of a page to a file or a heading leads somewhere', async (t) => {
  let followed = 0;
  for (const page of pages) {
    for (const [, target = ''] of read(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      followed += 1;
      const [file = '', heading] = target.split('#');
      const name = file === '' ? page : path.join(path.dirname(page), file);
      if (!existsSync(path.join(projectRoot, name))) t.fail(`${page} links to ${target}`);
      else if (heading !== undefined && !anchorsOf(name).has(heading)) {
        t.fail(`${page} links to ${target}, which has no such heading`);
      }
    }
  }
  t.ok(followed > 50, `${followed} links were followed`);
});

t.test('every file that a comment names is there', async (t) => {
  const names = new Set(files.flatMap((name) => endingsOf(name)));
  let named = 0;
  for (const file of code) {
    for (const comment of commentsOf(read(file))) {
      for (const [name] of comment.matchAll(/[\w./-]*[\w-]\.(?:ts|mjs|lua|sql|md)\b/g)) {
        named += 1;
        const normal = path.normalize(name.replace(/^\.\//, ''));
        if (!names.has(normal)) t.fail(`${file} names ${name}`);
      }
    }
  }
  t.ok(named > 50, `${named} names were looked up`);
});

/** `src/load/seal.ts` may be named so, as `load/seal.ts` and as `seal.ts`. */
function endingsOf(name: string): string[] {
  const parts = name.split(path.sep);
  return parts.map((_, index) => parts.slice(index).join('/'));
}

function commentsOf(source: string): string[] {
  return source.match(/\/\*\*[\s\S]*?\*\/|^\s*(?:\/\/|--).*$/gm) ?? [];
}

/** Headings as GitHub makes anchors of them. */
function anchorsOf(page: string): Set<string> {
  const headings = read(page).matchAll(/^#+ (.+)$/gm);
  return new Set(
    [...headings].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replace(/[^\w\s-]/g, '')
        .trim()
        .replace(/\s/g, '-'),
    ),
  );
}
