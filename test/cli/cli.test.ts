import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { InvalidArgumentError } from 'commander';
import fc from 'fast-check';
import type { Redis } from 'ioredis';
import t from 'tap';
import { bytes, date, query, settings } from '../../src/cli/arguments.ts';
import { bytesText, cellText, tableText } from '../../src/cli/table.ts';
import { credentialUuid } from '../../src/protocols/credential.ts';
import { settingNames } from '../../src/protocols/settings.ts';
import { projectRoot } from '../../src/root.ts';
import { compact } from '../../src/rows/compact.ts';
import { packSessions } from '../../src/rows/pack.ts';
import { makeSecrets } from '../../src/secrets.ts';
import { createSpool } from '../../src/spool/spool.ts';
import { registerStreams } from '../../src/spool/streams.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { type CliRun, commandLine } from '../support/cli.ts';
import { freePorts } from '../support/free-port.ts';
import { byKey } from '../support/identities.ts';
import { freshStores } from '../support/stores.ts';

const program = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
const stores = await freshStores(t, { CORE_SPOOL_SHARDS: '1' });

const { core, json } = commandLine(stores.environment);
const withSettings = (settings: Record<string, string>) =>
  commandLine({ ...stores.environment, ...settings });

/** Runs the built program as a process of its own. */
async function spawnCore(
  args: string[],
  environment: Record<string, string> = {},
): Promise<CliRun> {
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...process.env, ...stores.environment, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [stdout, stderr, [exitCode]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number]>,
  ]);
  return { exitCode, stdout, stderr };
}

t.test('commands before the migrations name the remedy, and core migrate repeats', async (t) => {
  const early = await core('node', 'list');
  t.same(early, {
    exitCode: 1,
    stdout: '',
    stderr: 'core: The database lacks the tables of Core; run core migrate\n',
  });
  t.same(await json('migrate'), { migrated: true });
  t.same(await json('migrate'), { migrated: true }, 'again');
});

t.test('nodes', async (t) => {
  t.same(await json('node', 'list'), []);
  t.equal((await core('node', 'list')).stdout, 'There are no nodes.\n');
  const created = await json('node', 'create', '--name', 'berlin-1', '--region', 'eu');
  t.same(Object.keys(created), ['nodeId', 'code']);
  const nodeId = String(created['nodeId']);
  t.same(await json('node', 'show', nodeId), {
    nodeId: 1,
    name: 'berlin-1',
    host: '',
    ip: '',
    region: 'eu',
    reportedName: null,
    reportedHost: null,
    reportedRegion: null,
    status: 'pending',
    syncStatus: 'pending',
    revision: 1,
    appliedRevision: null,
    reportedRevision: null,
    rolledBackTo: null,
    faulty: null,
    versions: { agent: null, xray: null, telemt: null },
    load: { cpuPercent: null, memoryBytes: null, uptimeSeconds: null },
    unpublishedSince: null,
    publishError: null,
    maintenance: null,
    lastSeenAt: null,
    lastError: null,
    versionFaults: [],
    missingPosts: 0,
    versionsInTurn: null,
    raw: [],
  });
  const rekeyed = await json('node', 'rekey', nodeId, '--yes');
  t.not(rekeyed['code'], created['code']);
  const before = await core('--json', 'node', 'list');
  t.match(JSON.parse(before.stdout), [{ nodeId: 1 }], '--json may also come before the command');

  await json('node', 'create', '--name', 'gone');
  t.same(await json('node', 'revoke', '2', '--yes'), { nodeId: 2, status: 'revoked' });
  const { stdout } = await core('node', 'list');
  const lines = stdout.split('\n');
  t.match(lines[0], /^nodeId {2}name {6}region /);
  t.match(lines[1], /^ {5}1 {2}berlin-1 {2}eu /);
  t.match(lines[2], / revoked /);
  t.match((await core('node', 'show', '1')).stdout, /^name +berlin-1$/m);
  const table = await core('node', 'create', '--name', 'x');
  t.match(table.stdout, /^code +([0-9A-Z]{5}-){3}[0-9A-Z]{5}$/m);
  t.match(table.stdout, /^valid until +\d{4}-/m);
});

t.test('protocols, outbounds, users, subscriptions', async (t) => {
  const file = path.join(t.testdir({}), 'settings.json');
  writeFileSync(file, '{"tlsDomain":"www.example.com"}');
  const { userId } = await json<{ userId: number }>('user', 'create', '--name', 'alice');
  const early = await json('subscription', 'create', '--user', String(userId));
  t.same(early, { subscriptionId: 1, links: [] });

  const vless = ['--node', '1', '--protocol', 'vless', '--port', '443'];
  const { nodeProtocolId } = await json('protocol', 'add', ...vless);
  const mtproto = ['--node', '1', '--protocol', 'MTPROTO', '--port', '8443'];
  await json('protocol', 'add', ...mtproto, '--settings', `@${file}`);
  t.match(await json('protocol', 'list', '--node', '1'), [
    { nodeProtocolId, nodeId: 1, protocol: 'VLESS', port: 443 },
    { protocol: 'MTPROTO', settings: { tlsDomain: 'www.example.com' } },
  ]);
  const taken = await core('protocol', 'add', ...vless);
  t.same(taken, {
    exitCode: 1,
    stdout: '',
    stderr: 'core: TCP port 443 of node 1 is taken by protocol 1 (VLESS)\n',
  });

  const outbound = ['--node', '1', '--tag', 'direct', '--protocol', 'freedom'];
  await json('outbound', 'add', ...outbound, '--settings', '{"domainStrategy":"UseIP"}');
  t.same(await json('outbound', 'list', '--node', '1'), [
    {
      tag: 'direct',
      trafficBytesUp: 0,
      trafficBytesDown: 0,
      configured: true,
      protocol: 'freedom',
      settings: { domainStrategy: 'UseIP' },
      options: {},
    },
  ]);

  const limited = ['--user', '1', '--limit', '10GB', '--expires', '2030-01-31T01:00:00+01:00'];
  const created = await json<{ subscriptionId: number; links: object[] }>(
    'subscription',
    'create',
    ...limited,
  );
  t.same(Object.keys(created), ['subscriptionId', 'links']);
  t.equal(created.links.length, 2);
  t.match(created.links[0], { uuid: String, nodeProtocolId: 1, nodeId: 1, protocol: String });
  const shown = await json('subscription', 'show', '2');
  t.same(shown, {
    durationSeconds: null,
    externalId: null,
    subscriptionId: 2,
    userId: 1,
    status: 'active',
    trafficBytesUp: 0,
    trafficBytesDown: 0,
    usedBytes: 0,
    trafficLimitBytes: 10_000_000_000,
    expiresAt: '2030-01-31T00:00:00.000Z',
    resetPeriod: 'none',
    anchorAt: shown['anchorAt'],
    nextResetAt: null,
    groups: ['default'],
    hasGivenCredential: false,
  });
  t.match(await json('subscription', 'show', '1'), { trafficLimitBytes: null, expiresAt: null });
  t.equal((await json<unknown[]>('subscription', 'list', '--user', '1')).length, 2);
  t.match(await json('user', 'list'), [{ userId: 1, name: 'alice' }]);
  t.match((await core('subscription', 'show', '1')).stdout, /^expiresAt +-$/m);
});

t.test('protocol add --help lists every setting of every protocol', async (t) => {
  const { stdout } = await core('protocol', 'add', '--help');
  for (const [protocol, names] of Object.entries(settingNames)) {
    t.match(stdout, protocol);
    for (const name of names) t.match(stdout, new RegExp(`^.* ${name}\\b`, 'm'), name);
  }
});

/** Appends two stream entries to a session stream, each with three rows of 52 bytes. */
async function appendSessions(redis: Redis): Promise<void> {
  const { redisPrefix: prefix, config } = stores;
  const spool = createSpool({ redis, prefix, ...config.spool, nowMs: Date.now });
  const event = {
    ...({ userId: 1, protocol: 'VLESS', eventType: 'ONLINE' } as const),
    occurredAt: Date.now(),
    ipAddress: '2001:db8:0:1:0:1:0:25',
  };
  const bytes = packSessions(1, [event, event, event]);
  const block = compact('session', { rows: 3, bytes });
  for (const key of ['a', 'b']) {
    await spool.append('session', 1, { ...block, identity: byKey(key) });
  }
  await spool.close();
}

t.test('status', async (t) => {
  // No process of Core runs here.
  const storesOnly = 'postgres,redis,clickhouse';
  const { config } = stores;
  const pool = createPool(stores.databaseUrl, { max: 1 });
  const redis = createRedis(stores.redisUrl);
  t.teardown(async () => {
    await pool.end();
    redis.disconnect();
  });
  t.match(await json('status', '--need', storesOnly), {
    backlog: { bytes: 0, streams: [] },
    lagSeconds: 0,
  });
  await registerStreams(pool, stores.redisPrefix, config.spool.shards);
  await connectRedis(redis);
  await appendSessions(redis);
  const stream = `${stores.redisPrefix}:{s0}:session`;
  const anHourAgo = `${Date.now() - 3_600_000}-0`;
  await pool.query(
    `INSERT INTO segments (stream, seq, first_id, last_id, rows, bytes, appended_bytes, attempts,
       last_error, sealed_at)
     VALUES ($1, 1, $2, $2, 3, 156, 156, 2, 'ClickHouse is away', now() - interval '10 minutes')`,
    [stream, anHourAgo],
  );
  const status = await json<{
    lagSeconds: number;
    segments: { oldestSeconds: number };
    backlog: { streams: { stream: string; lagSeconds: number }[] };
  }>('status', '--need', storesOnly);
  t.match(status, {
    nodes: { total: 3, pending: 2, revoked: 1, online: 0, offline: 0, error: 0 },
    backlog: { bytes: 312, entries: 2 },
    segments: { count: 1, rows: 3 },
  });
  t.ok(
    status.lagSeconds >= 3_599,
    'the lag is the age of the oldest stream entry that is not settled',
  );
  t.ok(status.segments.oldestSeconds >= 599);
  t.equal(status.backlog.streams.length, 5);
  t.match(
    status.backlog.streams.find((found) => found.stream === stream),
    { bytes: 312, entries: 2, segments: 1 },
  );
  const { stdout } = await core('status');
  t.match(stdout, /^nodes +3 \(0 online, 0 outdated, .* 2 pending, 1 revoked\)$/m);
  t.match(stdout, /^not published +1 nodes, change not yet published since 20/m);
  t.match(stdout, /^backlog +312 B in 2 stream entries$/m);
  t.match(await json('segments'), [
    { stream, seq: 1, attempts: 2, lastError: 'ClickHouse is away' },
  ]);

  await pool.query("UPDATE segments SET state = 'settled'");
  await pool.query('UPDATE streams SET sealed_id = $1', [anHourAgo]);
  const fresh = await json<{ lagSeconds: number }>('status', '--need', storesOnly);
  t.ok(fresh.lagSeconds < 600, 'stream entries that are not sealed yet count');
  const last = (await redis.xrevrange(stream, '+', '-'))[0]?.[0] ?? '';
  await pool.query('UPDATE streams SET sealed_id = $1', [last]);
  t.match(
    await json('status', '--need', storesOnly),
    { lagSeconds: 0, segments: { count: 0 } },
    'settled stream entries do not count',
  );
});

t.test('sql', async (t) => {
  t.same(await json('sql', 'SELECT number AS n, toString(number) AS s FROM numbers(2)'), [
    { n: 0, s: '0' },
    { n: 1, s: '1' },
  ]);
  t.same(await json('sql', 'SELECT * FROM usage'), [], 'the query runs in the database of the URL');
  t.equal(
    (await core('sql', 'SELECT 18446744073709551615 AS big, NULL AS none, 1.5 AS x')).stdout,
    '                 big  none    x\n18446744073709551615  -     1.5\n',
    'no digit is lost',
  );
  t.equal((await core('sql', 'SELECT 1 AS a, 2 AS b WHERE 0')).stdout, 'a  b\n');
  const many = await core('sql', 'SELECT number AS n FROM numbers(5000) ORDER BY n;');
  t.equal(many.stdout.split('\n').length, 5_002, 'every row of a long answer');
  t.equal((await json<unknown[]>('sql', 'SELECT number FROM numbers(70000)')).length, 70_000);
  t.match(await core('sql', 'SELECT * FROM nowhere'), {
    exitCode: 1,
    stdout: /^$/,
    stderr: /^core: ClickHouse: .*nowhere.*\(UNKNOWN_TABLE\)\n$/,
  });
  for (const write of ['DROP TABLE usage', 'TRUNCATE TABLE usage', 'OPTIMIZE TABLE usage']) {
    t.match(await core('sql', write), { exitCode: 1, stdout: /^$/, stderr: /readonly/ }, write);
  }
});

t.test('a fault is one line on stderr', async (t) => {
  const cases: [args: string[], message: RegExp][] = [
    [['node', 'show', '99'], /^There is no node 99$/],
    [['subscription', 'show', '99'], /^There is no subscription 99$/],
    [['subscription', 'create', '--user', '99'], /^There is no user 99$/],
    [['node', 'show', 'x'], /'x' is invalid.*whole number/],
    [['node', 'show', '0'], /whole number/],
    [['node', 'show'], /missing required argument 'id'/],
    [['node', 'show', '1', '2'], /too many arguments/],
    [['node', 'create'], /required option '--name <name>' not specified/],
    [['node', 'create', '--name', ' '], /must not be empty/],
    [['node', 'list', '--nope'], /unknown option '--nope'/],
    [['node'], /^core node needs a command: create, list/],
    [['node', 'lst'], /^core node has no command lst/],
    [[], /^core needs a command: up/],
    [['nope'], /^core has no command nope/],
    [['nod', 'list'], /^core has no command nod: up/],
    [['node', 'lst', '1'], /^core node has no command lst: create/],
    [['protocol', 'add', '--node', '1', '--protocol', 'VLES', '--port', '1'], /must be one of/],
    [
      ['protocol', 'add', '--node', '1', '--protocol', 'HYSTERIA2', '--port', '1'],
      /Invalid HYSTERIA2 settings: tls: /,
    ],
    [['link', 'show', 'nope'], /must be a UUID/],
    [['link', 'show', '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11'], /^There is no link 0b8f5f26/],
    [['protocol', 'add', '--node', '1', '--protocol', 'VLESS', '--port', '65536'], /to 65535/],
    [['outbound', 'list', '--node', '99'], /^There is no node 99$/],
    [['sql', ' -- nothing'], /empty/],
    [['sql', "INSERT INTO FUNCTION file('x') SELECT 1"], /must only read/],
  ];
  for (const [args, message] of cases) {
    const plain = await core(...args);
    t.equal(plain.exitCode, 1, args.join(' '));
    t.equal(plain.stdout, '');
    t.match(plain.stderr, /^core: [^\n]+\n$/, 'one line');
    t.match(plain.stderr.slice('core: '.length, -1), message);
    const { stdout, stderr, exitCode } = await core(...args, '--json');
    t.same([exitCode, stdout], [1, '']);
    t.match((JSON.parse(stderr) as { error: object }).error, {
      code: /^(INVALID_ARGUMENT|NOT_FOUND)$/,
      message,
    });
  }
  t.match(await withSettings({ CORE_PORT: 'x', CORE_SPOOL_SHARDS: '0' }).core('status'), {
    exitCode: 1,
    stderr: /^core: Invalid settings: CORE_PORT: .*CORE_SPOOL_SHARDS: .*\n$/,
  });
});

t.test('a store that is away is named', async (t) => {
  const [port] = await freePorts(1);
  const external = (setting: string, scheme: string) => ({
    environment: { [setting]: `${scheme}://u:secret@127.0.0.1:${port}/x` },
    question: `is it running where ${setting} says?`,
  });
  const dataDir = t.testdir({});
  makeSecrets(dataDir);
  const noUrls = { DATABASE_URL: '', REDIS_URL: '', CLICKHOUSE_URL: '' };
  const embedded = (setting: string) => ({
    environment: { ...noUrls, [setting]: String(port), CORE_DATA_DIR: dataDir },
    question: `is core up running, with the same ${setting}?`,
  });
  const nodeList = ['node', 'list'];
  const webhookList = ['webhook', 'list'];
  const sql = ['sql', 'SELECT 1'];
  for (const [args, { environment, question }, store] of [
    [nodeList, external('DATABASE_URL', 'postgres'), 'Postgres'],
    [webhookList, external('REDIS_URL', 'redis'), 'Redis'],
    [sql, external('CLICKHOUSE_URL', 'http'), 'ClickHouse'],
    [['migrate'], external('CLICKHOUSE_URL', 'http'), 'ClickHouse'],
    [nodeList, embedded('CORE_POSTGRES_PORT'), 'Postgres'],
    [webhookList, embedded('CORE_REDIS_PORT'), 'Redis'],
    [sql, embedded('CORE_CLICKHOUSE_PORT'), 'ClickHouse'],
  ] as const) {
    t.same(await withSettings(environment).core(...args), {
      exitCode: 1,
      stdout: '',
      stderr: `core: ${store} at 127.0.0.1:${port} cannot be used (connect ECONNREFUSED 127.0.0.1:${port}); ${question}\n`,
    });
  }
});

t.test('help', async (t) => {
  const commands = [
    ...['up', 'serve', 'work', 'migrate', 'status', 'segments', 'reconcile', 'sql'],
    ...['list', 'retry', 'rejected'].map((name) => `segments ${name}`),
    ...['create', 'list', 'show', 'rekey', 'revoke'].map((name) => `node ${name}`),
    ...['outbound prune'],
    ...['protocol', 'outbound'].flatMap((group) => [`${group} add`, `${group} list`]),
    ...['user create', 'user list'],
    ...['create', 'show', 'list'].map((name) => `subscription ${name}`),
  ];
  for (const command of commands) {
    const { exitCode, stdout, stderr } = await withSettings({
      CORE_PORT: 'not looked at',
    }).core(...command.split(' '), '--help');
    t.same([exitCode, stderr], [0, ''], command);
    t.match(stdout, `Usage: core ${command}`);
    t.match(stdout, /Examples?:\n {2}/);
    t.match(stdout, /--json/);
  }
  t.match(await core('--help'), { exitCode: 0, stdout: /Commands:/ });
  t.match(await core('--version'), { exitCode: 0, stdout: /^\d+\.\d+\.\d+\n$/ });
});

t.test('the built program', async (t) => {
  t.same(await spawnCore(['node', 'show', '1', '--json']), {
    exitCode: 0,
    stdout: `${JSON.stringify(await json('node', 'show', '1'))}\n`,
    stderr: '',
  });
  t.match(await spawnCore(['status']), { exitCode: 3, stderr: /^$/ }, 'ends by itself');
  t.match(await spawnCore(['sql', 'SELECT 1 AS one', '--json']), {
    exitCode: 0,
    stdout: /^\[\{"one":1\}\]\n$/,
  });
  t.same(await spawnCore(['node', 'show', '99', '--json']), {
    exitCode: 1,
    stdout: '',
    stderr: '{"error":{"code":"NOT_FOUND","message":"There is no node 99"}}\n',
  });

  const child = spawn(process.execPath, [program, 'sql', 'SELECT number FROM numbers(1000000)'], {
    env: { ...process.env, ...stores.environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.once('data', () => child.stdout.destroy());
  const [complaint, [exitCode]] = await Promise.all([
    text(child.stderr),
    once(child, 'close') as Promise<[number]>,
  ]);
  t.same([exitCode, complaint], [0, ''], 'it is no failure if the reader closes the pipe');
});

t.test('byte counts', async (t) => {
  const cases: [given: string, value: number][] = [
    ['1', 1],
    ['10GB', 10_000_000_000],
    ['10 gb', 10_000_000_000],
    ['1KiB', 1_024],
    ['1.5MiB', 1_572_864],
    ['0.001KB', 1],
    ['2TB', 2_000_000_000_000],
    ['1TiB', 1_099_511_627_776],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ];
  for (const [given, value] of cases) t.equal(bytes(given), value, given);
  const refused = ['', '0', '-1', '1.5', '1XB', 'GB', '1e3', '0x10', '9007199254740992', '9000PB'];
  for (const given of refused) t.throws(() => bytes(given), InvalidArgumentError, given);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (value) => {
      return bytes(String(value)) === value && bytes(`${value}B`) === value;
    }),
  );
});

t.test('dates, settings, queries', async (t) => {
  t.same(date('2030-01-31T01:00:00+01:00'), new Date('2030-01-31T00:00:00Z'));
  for (const given of ['2030-01-31', '2030-01-31T00:00:00', '2030-02-31T00:00:00Z', 'soon']) {
    t.throws(() => date(given), InvalidArgumentError, given);
  }
  t.same(settings('{"a":[1]}'), { a: [1] });
  for (const given of ['', '[]', 'null', '1', '{', '@/nowhere/at/all', '{"a":"\\u0000"}']) {
    t.throws(() => settings(given), InvalidArgumentError, given);
  }
  for (const given of ['SELECT 1', '/* insert */ SELECT 1', '-- x\nSELECT 1', '(SELECT 1)']) {
    t.equal(query(given), given);
  }
  for (const given of ['', '-- x', 'insert into x', '/* a */ -- b\n INSERT INTO x']) {
    t.throws(() => query(given), InvalidArgumentError, given);
  }
});

t.test('tables', async (t) => {
  t.equal(
    tableText(
      ['id', 'name'],
      [
        [1, 'a'],
        [10, null],
      ],
    ),
    'id  name\n 1  a\n10  -\n',
  );
  t.equal(
    cellText('a\u001b[2J\nb\u202ec'),
    'a\\x1b[2J\\x0ab\\u202ec',
    'text cannot move the cursor',
  );
  t.equal(cellText(new Date(0)), '1970-01-01T00:00:00.000Z');
  t.equal(cellText({ a: 1 }), '{"a":1}');
  t.same([0, 999, 1_000, 1_234_567, 999_999].map(bytesText), [
    '0 B',
    '999 B',
    '1 kB',
    '1.23 MB',
    '1 MB',
  ]);
});

t.test('link show', async (t) => {
  const { links } = await json<{ links: { uuid: string }[] }>(
    'subscription',
    'create',
    '--user',
    '1',
  );
  const [vless, telegram] = links.map((link) => link.uuid);
  const hostless = await core('link', 'show', String(vless));
  t.match(hostless.stderr, /Node 1 has no host or address yet.*core node set 1 --host/);
  t.equal(hostless.exitCode, 1);
  const node = ['--name', 'ams-1', '--host', 'ams-1.example.net'];
  const { nodeId } = await json('node', 'create', ...node);
  const settings = JSON.stringify({ publicPort: 443, sniffing: false });
  const added = ['--protocol', 'vless', '--port', '8443', '--settings', settings];
  const { nodeProtocolId } = await json('protocol', 'add', '--node', String(nodeId), ...added);
  t.match(await json('protocol', 'list', '--node', String(nodeId)), [{ nodeProtocolId }]);
  const created = await json<{ links: { uuid: string }[] }>(
    'subscription',
    'create',
    '--user',
    '1',
  );
  const uuid = String(created.links.at(-1)?.uuid);
  await json('subscription', 'set', '4', '--credential', 'alice-phone');
  const uri = `vless://${credentialUuid('alice-phone')}@ams-1.example.net:443?encryption=none&type=tcp&security=none#ams-1%20vless-8443`;
  t.same(await json('link', 'show', uuid.toUpperCase()), {
    ...{ uri, uris: [uri], otherUris: [] },
    warnings: [],
  });
  const { stdout } = await core('link', 'show', uuid);
  t.ok(stdout.startsWith(`${uri}\n\n`));
  const listed = await core('link', 'list', '--subscription', '4', '--uri');
  t.equal(listed.stdout, `${uri}\n`, 'links whose place nobody knows yet are left out');
  t.match(listed.stderr, 'Left out: links on nodes that have no host or address yet (1)');
  // The smallest QR code is 21 modules high, and a line shows two rows of modules.
  const lines = stdout.trimEnd().split('\n').slice(2);
  t.ok(lines.length > 10, `${lines.length} lines`);
  t.match(lines[2], /[\u2580\u2584\u2588]/);
  t.match((await core('link', 'show', String(telegram))).stderr, 'no host or address');
});
