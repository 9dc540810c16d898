// Checks that imports point one way, and that two things stay in their one place: uWebSockets.js in
// src/http, and process.env in src/config.ts. Prints one line for each fault, and exits with 1 if there is
// a fault.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/**
 * The folders that serve nodes and operators, lowest layer first. A folder imports at most folders before
 * it.
 */
const domain = [
  'contract',
  'stores',
  'presence',
  'rows',
  'spool',
  'accept',
  'audit',
  'protocols',
  'render',
  'client-apps',
  'nodes',
  'groups',
  'settings',
  'fleet',
  'publish',
  'subscriptions',
  'pages',
  'panels',
];
/** Single files of src that everybody may import: they import nothing of the layers above them. */
const ground = [
  'errors',
  'config',
  'environment',
  'log',
  'root',
  'lifecycle',
  'failpoints',
  'buffer-pool',
  'clickhouse-sql',
  'durable-file',
  'instance-file',
  'linux-processes',
  'secrets',
  'text',
  'client-address',
  'integer',
];

/**
 * What each part of src may import. A part is a folder, or a single file by its name; each may also
 * import itself and the ground.
 */
const allowed = {
  bin: ['cli', 'app'],
  cli: ['app', 'http', 'load', 'webhooks', 'processes', ...domain],
  app: ['http', 'load', 'webhooks', 'embedded', 'processes', ...domain],
  embedded: ['processes'],
  processes: ['stores'],
  http: ['webhooks', ...domain],
  load: ['spool', 'rows', 'nodes', 'subscriptions', 'stores', 'contract'],
  webhooks: ['subscriptions', 'stores'],
  accept: ['spool', 'rows', 'contract'],
  spool: ['rows', 'stores', 'contract'],
  rows: ['contract'],
  audit: ['stores'],
  publish: ['nodes', 'render', 'protocols', 'stores', 'contract'],
  panels: ['subscriptions', 'protocols', 'stores', 'contract'],
  fleet: ['settings', 'groups', 'nodes', 'protocols', 'stores', 'contract'],
  settings: ['groups', 'nodes', 'protocols', 'stores', 'contract'],
  subscriptions: [
    'rows',
    'groups',
    'nodes',
    'client-apps',
    'render',
    'protocols',
    'stores',
    'contract',
  ],
  groups: ['nodes', 'stores'],
  nodes: ['rows', 'render', 'stores', 'contract'],
  pages: ['subscriptions', 'client-apps', 'render', 'protocols', 'stores', 'contract'],
  'client-apps': ['render', 'protocols', 'contract'],
  render: ['protocols', 'contract'],
  protocols: ['contract'],
  presence: ['stores'],
  stores: ['contract'],
  contract: [],
  errors: [],
  failpoints: [],
  'buffer-pool': [],
  'clickhouse-sql': [],
  log: ['text'],
  text: [],
  integer: [],
  root: [],
  lifecycle: ['durable-file', 'errors'],
  config: ['errors', 'environment'],
  environment: ['client-address', 'text'],
  'client-address': [],
  secrets: ['config', 'durable-file', 'errors'],
  'durable-file': [],
  'instance-file': ['durable-file'],
  'linux-processes': ['durable-file'],
};

const faults = [];
for (const name of readdirSync(path.join(root, 'src'), { recursive: true }).sort()) {
  if (name.endsWith('.ts')) check(path.join(root, 'src', name));
}
for (const fault of faults) console.error(fault);
if (faults.length > 0) {
  console.error(`${faults.length} faults; the directions are in scripts/imports.mjs`);
  process.exitCode = 1;
}

function check(file) {
  const name = path.relative(root, file);
  const part = partOf(file);
  const source = withoutComments(readFileSync(file, 'utf8'));
  const rule = allowed[part];
  if (rule === undefined) faults.push(`${name}: ${part} has no rule in scripts/imports.mjs`);
  for (const imported of importsOf(source)) {
    if (imported === 'uWebSockets.js' && part !== 'http') {
      faults.push(`${name}: only src/http imports uWebSockets.js`);
    }
    if (!imported.startsWith('.')) continue;
    const target = path.resolve(path.dirname(file), imported);
    if (!target.startsWith(path.join(root, 'src') + path.sep)) {
      faults.push(`${name}: src does not import ${path.relative(root, target)}`);
      continue;
    }
    const to = partOf(target);
    if (to === part || (ground.includes(to) && !ground.includes(part))) continue;
    if (!rule?.includes(to)) faults.push(`${name}: ${part} does not import ${to} (${imported})`);
  }
  const readsEnvironment = /\bprocess\s*(\.\s*env\b|\[\s*['"]env['"]\s*\])/.test(source);
  if (readsEnvironment && !mayReadEnvironment(name)) {
    faults.push(`${name}: only src/config.ts reads process.env`);
  }
}

/** The entry of the program hands process.env to readConfig, and does nothing else with it. */
function mayReadEnvironment(name) {
  return name === path.join('src', 'config.ts') || name === path.join('src', 'bin', 'core.ts');
}

function partOf(file) {
  const [first = ''] = path.relative(path.join(root, 'src'), file).split(path.sep);
  return first.replace(/\.(ts|js)$/, '');
}

function importsOf(source) {
  const patterns = [
    /\b(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/g,
    /\bimport\s*['"]([^'"]+)['"]/g,
    /\bimport\s*\(\s*['"]([^'"]+)['"]\s*\)/g,
  ];
  return patterns.flatMap((pattern) => [...source.matchAll(pattern)].map((match) => match[1]));
}

function withoutComments(source) {
  return source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
}
