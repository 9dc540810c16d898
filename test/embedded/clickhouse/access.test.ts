import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { totalmem } from 'node:os';
import path from 'node:path';
import { createClient } from '@clickhouse/client';
import t, { type Test } from 'tap';
import { analystQueriesMax } from '../../../src/embedded/clickhouse/access.ts';
import { startClickHouse } from '../../../src/embedded/clickhouse/start.ts';
import { createLogger } from '../../../src/log.ts';
import { projectRoot } from '../../../src/root.ts';
import { makeSecrets } from '../../../src/secrets.ts';
import { until } from '../../support/api.ts';
import {
  type Answer,
  ask,
  type ClickHouseServer,
  connectClickHouse,
  startClickHouseServer,
  userHeaders,
} from '../../support/clickhouse-server.ts';
import { freePorts } from '../../support/free-port.ts';

const coreProgram = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
const canary = 'canary-4b1f';
const root = process.getuid?.() === 0;
const nobody = 65_534;

/** A server with a table, a file that nobody may read, and a port that the server must never call. */
async function openTarget(t: Test) {
  const folder = t.testdir({ data: {}, outside: { 'secret.tsv': `${canary}\n` } });
  const outside = path.join(folder, 'outside');
  const file = path.join(outside, 'secret.tsv');
  const server = await startClickHouseServer(t, path.join(folder, 'data'));
  const client = connectClickHouse(t, server);
  await client.command({
    query: 'CREATE TABLE t (a UInt32, s String) ENGINE = MergeTree ORDER BY a',
  });
  await client.insert({ table: 't', values: [{ a: 1, s: 'kept' }], format: 'JSONEachRow' });
  let visits = 0;
  const sink = net.createServer((socket) => {
    visits += 1;
    socket.destroy();
  });
  sink.listen(0, '127.0.0.1');
  await once(sink, 'listening');
  t.teardown(() => sink.close());
  const { port } = sink.address() as net.AddressInfo;
  /** Checks that nothing was written inside or outside, that no file was read, and that nobody was called. */
  const unharmed = async (t: Test, answers: readonly Answer[]): Promise<void> => {
    const rows = await client.query({
      query: `SELECT database, name, total_rows FROM system.tables
              WHERE database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema')`,
      format: 'JSONCompactEachRow',
    });
    t.same(await rows.json(), [['core', 't', '1']], 'the tables are as they were');
    t.same(readdirSync(outside), ['secret.tsv'], 'no file was written');
    t.equal(readFileSync(file, 'utf8'), `${canary}\n`);
    t.equal(visits, 0, 'no connection was opened');
    t.notOk(
      answers.some(({ text }) => text.includes(canary)),
      'no file was read',
    );
  };
  return { server, client, folder, outside, file, sink: `127.0.0.1:${port}`, unharmed };
}

function post(server: ClickHouseServer, user: 'core' | 'analyst', body: string, query = '') {
  const headers = userHeaders(user, server.passwords[user]);
  return ask(server, `/?${query}`, { method: 'POST', headers, body });
}

t.test('a request needs a name and a password', async (t) => {
  const { server, unharmed } = await openTarget(t);
  const { core, analyst } = server.passwords;
  const basic = (user: string, password: string) => ({
    authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
  });
  const url = (user: string, password: string) =>
    `&user=${encodeURIComponent(user)}&password=${encodeURIComponent(password)}`;
  const taken: [string, string, Record<string, string>][] = [
    ['Basic', '', basic('core', core)],
    ['Basic of the analyst', '', basic('analyst', analyst)],
    ['headers', '', userHeaders('core', core)],
    ['parameters', url('analyst', analyst), {}],
  ];
  for (const [how, more, headers] of taken) {
    const answer = await ask(server, `/?query=SELECT+42${more}`, { headers });
    t.match(answer, { status: 200, text: '42\n' }, how);
  }
  const refused: [string, string, Record<string, string>][] = [
    ['nothing', '', {}],
    ['the user that ClickHouse has by default', '', userHeaders('default', '')],
    ['no password', '', { 'x-clickhouse-user': 'core' }],
    ['no name', '', { 'x-clickhouse-key': core }],
    ['an empty password', '', basic('core', '')],
    ['a part of the password', '', basic('core', core.slice(0, -1))],
    ['a longer password', '', basic('core', `${core}x`)],
    ["the other user's password", '', basic('core', analyst)],
    ['a name in another case', '', basic('CORE', core)],
    ['a Bearer', '', { authorization: `Bearer ${core}` }],
    ['Basic that is not base64', '', { authorization: 'Basic ***' }],
    ['Basic and headers', '', { ...basic('core', core), ...userHeaders('core', core) }],
    ['Basic and parameters', url('core', core), basic('core', core)],
    ['headers and parameters', url('core', core), userHeaders('core', core)],
    ['a parameter twice', `${url('core', core)}&user=analyst`, {}],
    ['a name that is none', '', basic('<script>\u0007', 'x')],
    ['a name of objects', '', basic('constructor', 'x')],
  ];
  const answers: Answer[] = [];
  for (const [how, more, headers] of refused) {
    for (const [method, target, body] of [
      ['GET', `/?query=SELECT+42${more}`, undefined],
      ['GET', `/?${more}`, undefined],
      ['POST', `/?${more}`, 'SELECT 42'],
      ['POST', `/?query=INSERT+INTO+t+FORMAT+TSV${more}`, '2\tx\n'],
    ] as const) {
      const sent = body === undefined ? { method, headers } : { method, headers, body };
      const answer = await ask(server, target, sent);
      answers.push(answer);
      t.match(
        answer,
        {
          status: 401,
          code: '516',
          headers: { 'www-authenticate': 'Basic realm="ClickHouse server HTTP API"' },
          text: /^Code: 516\. DB::Exception: .*\(AUTHENTICATION_FAILED\)\n$/,
        },
        `${how}: ${method} ${target.slice(0, 12)}`,
      );
      t.notOk(answer.text.includes(core) || answer.text.includes(analyst), 'no secret');
      t.notMatch(answer.text, /</, 'nothing of the name that could be shown as HTML');
    }
  }
  for (const target of ['/ping', '/replicas_status']) {
    t.match(await ask(server, target), { status: 200, text: 'Ok.\n' }, `${target} tells all`);
  }
  t.equal((await ask(server, '/nowhere')).status, 401, 'and it does not learn what there is');
  const nobody = await ask(server, '/?query=SELECT+42');
  t.match(nobody.text, /user analyst.*core stores --reveal/, 'it says which user tools have');
  await unharmed(t, answers);
});

t.test('the official client logs in, in each of its ways', async (t) => {
  const { server } = await openTarget(t);
  for (const username of ['core', 'analyst'] as const) {
    const password = server.passwords[username];
    const inUrl = `http://${username}:${password}@127.0.0.1:${server.port}/core`;
    for (const options of [
      { url: server.url, database: 'core', username, password },
      { url: inUrl },
      {
        url: server.url,
        database: 'core',
        username: '',
        password: '',
        http_headers: userHeaders(username, password),
        set_basic_auth_header: false,
      },
    ]) {
      const client = createClient(options);
      t.teardown(() => client.close());
      const result = await client.query({
        query: 'SELECT s FROM t WHERE a = {a:UInt32}',
        query_params: { a: 1 },
        format: 'JSONEachRow',
        clickhouse_settings: { output_format_json_quote_64bit_integers: 1 },
      });
      t.same(await result.json(), [{ s: 'kept' }], username);
    }
  }
});

t.test('requests that a web page makes a browser send are refused', async (t) => {
  const { server, client, unharmed } = await openTarget(t);
  const { port } = server;
  const login = server.headers;
  const answers: Answer[] = [];
  const pages: Record<string, string>[] = [
    { host: 'evil.example', ...login },
    { host: `evil.example:${port}`, ...login },
    { host: `evil.localhost:${port}`, ...login },
    { host: `127.0.0.1.evil.example:${port}`, ...login },
    { host: `127.0.0.2:${port}`, ...login },
    { host: '127.0.0.1@evil.example', ...login },
    { 'sec-fetch-site': 'cross-site', ...login },
    { 'sec-fetch-site': 'same-site', ...login },
    { origin: 'http://evil.example', ...login },
    { origin: 'null', ...login },
  ];
  for (const headers of pages) {
    for (const [method, target, body] of [
      ['GET', '/ping', undefined],
      ['GET', '/?query=SELECT+42', undefined],
      ['POST', '/', 'INSERT INTO t VALUES (2, 2)'],
      ['POST', '/', 'DROP TABLE t'],
      ['OPTIONS', '/', undefined],
    ] as const) {
      const sent = body === undefined ? { method, headers } : { method, headers, body };
      const answer = await ask(server, target, sent);
      answers.push(answer);
      t.match(
        answer,
        { status: 403, code: '497' },
        `${method} ${target} ${Object.values(headers)[0]}`,
      );
      t.equal(answer.headers['access-control-allow-origin'], undefined);
    }
  }
  for (const headers of [
    { host: `localhost:${port}`, ...login },
    { host: '127.0.0.1', ...login },
    { host: `[::1]:${port}`, ...login },
    { host: 'LOCALHOST', 'sec-fetch-site': 'none', ...login },
    { host: 'localhost', 'sec-fetch-site': 'same-origin', ...login },
  ]) {
    t.equal((await ask(server, '/?query=SELECT+42', { headers })).text, '42\n', headers.host);
  }
  for (const [request, status] of [
    ['GET /?query=SELECT+42 HTTP/1.1\r\nConnection: close', 400],
    ['GET /?query=SELECT+42 HTTP/1.1\r\nHost: \r\nConnection: close', 403],
    ['GET /?query=SELECT+42 HTTP/1.0', 403],
    ['GET http://evil.example/ping HTTP/1.1\r\nHost: evil.example\r\nConnection: close', 403],
  ] as const) {
    const raw = net.connect(port, '127.0.0.1');
    raw.write(`${request}\r\n\r\n`);
    let said = '';
    for await (const chunk of raw.setEncoding('utf8')) said += chunk;
    t.match(said, new RegExp(`^HTTP/1\\.1 ${status} `), request);
  }
  await unharmed(t, answers);

  const named = await startClickHouseServer(t, path.join(t.testdirName, 'named'), [
    ...['--hosts', 'db.example.net,Db'],
  ]).catch(() => undefined);
  t.equal(named, undefined, 'a folder that is not there has no secrets');
  mkdirSync(path.join(t.testdirName, 'data', 'named'));
  const other = await startClickHouseServer(t, path.join(t.testdirName, 'data', 'named'), [
    ...['--hosts', 'db.example.net,Db'],
  ]);
  for (const host of ['db.example.net:1', 'db', 'localhost']) {
    t.equal((await ask(other, '/ping', { headers: { host } })).status, 200, host);
  }
  t.equal((await ask(other, '/ping', { headers: { host: 'example.net' } })).status, 403);
  await client.close();
});

interface Places {
  file: string;
  outside: string;
  sink: string;
}

type Refusal = [statement: string, codes: RegExp];

/** Statements that are refused to every user, with the codes of the refusal. */
function refusedToAll(at: Places): Refusal[] {
  return [
    ...refusedReadingFiles(at),
    ...refusedReachingOut(at),
    ...refusedSettings(at),
    ...refusedAdministration(at),
    ...refusedStoring(at),
    ...refusedInserts(at),
  ];
}

/** Reads of files, by table functions, functions and expressions of a structure. */
function refusedReadingFiles({ file }: Places): Refusal[] {
  const structure = (name: string) => `a Int8, b String ${name} file(\\'${file}\\')`;
  return [
    [`SELECT * FROM file('${file}', LineAsString)`, /497/],
    [`SELECT file('${file}')`, /497/],
    [`SELECT * FROM '${file}'`, /60/],
    [`SELECT * FROM "${file}"`, /60/],
    [`SELECT * FROM \`${file}\``, /60/],
    [`SELECT * FROM default.\`${file}\``, /497/],
    [`DESCRIBE TABLE default.\`${file}\``, /497/],
    [`SELECT 1 IN file('${file}', LineAsString)`, /497/],
    [`SELECT (SELECT * FROM file('${file}', LineAsString))`, /497/],
    [`WITH x AS (SELECT * FROM file('${file}', LineAsString)) SELECT * FROM x`, /497/],
    [`SELECT * FROM view(SELECT * FROM file('${file}', LineAsString))`, /497/],
    [`SELECT 1 UNION ALL SELECT * FROM file('${file}', LineAsString)`, /497/],
    [`EXPLAIN SELECT * FROM file('${file}', LineAsString)`, /497/],
    [`DESCRIBE TABLE file('${file}', LineAsString)`, /497/],
    [`DESCRIBE TABLE \`${file}\``, /60/],
    [`SELECT arrayMap(file, ['${file}'])`, /497/],
    [`SELECT * APPLY file FROM (SELECT '${file}' AS x)`, /497/],
    [`SELECT * APPLY(file) FROM (SELECT '${file}' AS x)`, /497/],
    [`SELECT COLUMNS('x') APPLY (v -> file(v)) FROM (SELECT '${file}' AS x)`, /497/],
    [`SELECT b FROM values('${structure('ALIAS')}', 1)`, /497/],
    [`SELECT b FROM values('${structure('/**/ALIAS')}', 1)`, /497/],
    [`SELECT b FROM values('a Int8, b String \\x41LIAS file(\\'${file}\\')', 1)`, /497/],
    [`SELECT b FROM generateRandom('${structure('ALIAS')}') LIMIT 1`, /497/],
    [`SELECT b FROM null('${structure('ALIAS')}')`, /497/],
    [`SELECT * FROM format(JSONEachRow, '${structure('DEFAULT')}', '{"a":1}')`, /497/],
    [`SELECT * FROM eval('SELECT file(\\'${file}\\')')`, /497/],
  ];
}

/** Table functions and functions that read what is outside, or call another server. */
function refusedReachingOut({ file, outside, sink }: Places): Refusal[] {
  const url = `http://${sink}/x`;
  return [
    [`SELECT * FROM filesystem('${outside}')`, /497/],
    [`SELECT * FROM fileCluster('default', '${file}', LineAsString)`, /497/],
    [`SELECT * FROM icebergLocal('${outside}')`, /497/],
    [`SELECT * FROM deltaLakeLocal('${outside}')`, /497/],
    [`SELECT * FROM sqlite('${file}', 't')`, /497/],
    [`SELECT * FROM executable('cat ${file}', TSV, 's String')`, /497/],
    [`SELECT * FROM url('${url}', LineAsString)`, /497/],
    [`SELECT * FROM \`url\`('${url}', 'LineAsString')`, /497/],
    [`SELECT * FROM urlCluster('default', '${url}', LineAsString)`, /497/],
    [`SELECT * FROM s3('${url}')`, /497/],
    [`SELECT * FROM s3Cluster('default', '${url}')`, /497/],
    [`SELECT * FROM gcs('${url}')`, /497/],
    [`SELECT * FROM iceberg('${url}')`, /497/],
    [`SELECT * FROM deltaLake('${url}')`, /497/],
    [`SELECT * FROM hudi('${url}')`, /497/],
    [`SELECT * FROM azureBlobStorage('${url}', 'c', 'b')`, /497/],
    [`SELECT * FROM hdfs('hdfs://${sink}/x', 'TSV', 's String')`, /497/],
    [`SELECT * FROM remote('${sink}', system.one)`, /497/],
    [`SELECT * FROM remoteSecure('${sink}', system.one)`, /497/],
    [`SELECT * FROM cluster('default', system.one)`, /497/],
    [`SELECT * FROM mysql('${sink}', 'd', 't', 'u', 'p')`, /497/],
    [`SELECT * FROM postgresql('${sink}', 'd', 't', 'u', 'p')`, /497/],
    [`SELECT * FROM mongodb('${sink}', 'd', 'c', 'u', 'p', 's String')`, /497/],
    [`SELECT * FROM redis('${sink}', 'k', 'k String, v String')`, /497/],
    [`SELECT * FROM odbc('DSN=x', 'd', 't')`, /497/],
    [`SELECT * FROM jdbc('jdbc:x', 'd', 't')`, /497/],
    [`SELECT * FROM ytsaurus('${url}', '//t', 't', 's String')`, /497/],
    [`SELECT * FROM input('s String')`, /497/],
    [`SELECT * FROM loop(core, t) LIMIT 3`, /497/],
    [`SELECT * FROM fuzzQuery('SELECT 1')`, /497/],
    [`SELECT * FROM dictionary('x')`, /497/],
    [`SELECT dictGet('x', 'y', 1)`, /497/],
    [`SELECT catboostEvaluate('${file}', 1)`, /497/],
    [`SELECT aiGenerate('x', 'y')`, /497/],
    ['SELECT addressToLine(1)', /497/],
  ];
}

/** Results written to files, other roles, and settings that lift a bound. */
function refusedSettings({ file, outside }: Places): Refusal[] {
  return [
    [`SELECT 1 INTO OUTFILE '${outside}/out'`, /358/],
    [`SELECT 1 INTO OUTFILE '${outside}/out' TRUNCATE FORMAT TSV`, /358/],
    [`SELECT 1 INTO\n/* x */ OUTFILE\t'${outside}/out' AND STDOUT FORMAT TSV`, /358/],
    [`SHOW TABLES INTO OUTFILE '${outside}/out'`, /358/],
    ['SELECT 1; SET ROLE loader', /62/],
    ["SELECT 1 FORMAT TSV SETTINGS max_threads = 1; SELECT 'x'", /62/],
    ['SET ROLE loader', /497/],
    ['SET ROLE ALL', /497/],
    ['SET DEFAULT ROLE loader TO default', /497/],
    ["SET profile = 'default'", /452/],
    ["SELECT 1 SETTINGS profile = 'default'", /452/],
    ["SELECT 1 SETTINGS dialect = 'kusto'", /452/],
    ['SELECT 1 SETTINGS readonly = 0', /452/],
    ['SELECT 1 SETTINGS allow_ddl = 1', /452/],
    ['SELECT 1 SETTINGS allow_introspection_functions = 1', /452/],
    [`SELECT 1 SETTINGS format_schema = '${file}'`, /452/],
    [`SELECT 1 SETTINGS format_template_row = '${file}'`, /452/],
    [`SELECT 1 SETTINGS output_format_schema = '${outside}/out'`, /452/],
    ["SELECT 1 SETTINGS additional_result_filter = 'x'", /452/],
    ["SELECT 1 SETTINGS log_comment = 'x'", /452/],
    ['SELECT 1 SETTINGS max_memory_usage = 0', /452/],
    ['SELECT 1 SETTINGS max_memory_usage = DEFAULT', /452|62/],
    ['SELECT 1 SETTINGS max_memory_usage = 99999999999999', /452/],
    ['SELECT 1 SETTINGS max_execution_time = 0', /452/],
    ['SELECT 1 SETTINGS max_execution_time = 100000', /452/],
    ['SELECT 1 SETTINGS max_execution_time = 1e9', /452/],
    ['SELECT 1 SETTINGS max_result_rows = 0', /452/],
    ['SELECT 1 SETTINGS max_threads = 1000', /452/],
    ['SELECT * FROM (SELECT 1 SETTINGS max_threads = 1000)', /452/],
    ['SELECT * FROM (SELECT 1 SETTINGS extremes = 0, max_memory_usage = 0)', /452/],
    ['SELECT 1 IN (SELECT 1 SETTINGS `max_memory_usage` = 0)', /452/],
    ['WITH x AS (SELECT 1 SETTINGS max_memory_usage = 0) SELECT * FROM x', /452/],
    ['SELECT 1 FORMAT TSV SETTINGS max_memory_usage = 0', /452/],
    ['SELECT 1 SETTINGS max_threads = {n:UInt64}', /452|62/],
    ['SET max_memory_usage = 0', /452/],
    ['SELECT 1 SETTINGS x.y = 1, max_memory_usage = 0', /115|62/],
  ];
}

/** Statements for administrators. */
function refusedAdministration({ outside }: Places): Refusal[] {
  return [
    ['SELECT 1 PARALLEL WITH SET ROLE loader', /497|62/],
    ['SYSTEM SHUTDOWN', /497|164/],
    ['SYSTEM RELOAD CONFIG', /497|164/],
    [`BACKUP TABLE t TO File('${outside}/b')`, /497/],
    [`RESTORE TABLE t FROM File('${outside}/b')`, /497/],
    [`ATTACH TABLE u FROM '${outside}' (a String) ENGINE = File(TSV)`, /497/],
    [`ATTACH DATABASE u ENGINE = Filesystem('${outside}')`, /497/],
    ['DETACH TABLE t', /497/],
    ['CREATE USER u', /497|164/],
    ['GRANT ALL ON *.* TO default', /497/],
    ['EXECUTE AS default SELECT 1', /497|62/],
    ['CREATE FUNCTION f AS x -> x', /497|164/],
  ];
}

/** Tables, views and columns that keep such an expression. */
function refusedStoring({ file, outside, sink }: Places): Refusal[] {
  const url = `http://${sink}/x`;
  return [
    [`CREATE TABLE u (a String) ENGINE = File(TSV, '${file}')`, /497|164/],
    [`CREATE TABLE u (a String) ENGINE = URL('${url}', TSV)`, /497|164/],
    [`CREATE TABLE u (a String) ENGINE = Executable('x', TSV)`, /497|164/],
    [`CREATE TABLE u (a String) ENGINE = PostgreSQL('${sink}', 'd', 't', 'u', 'p')`, /497|164/],
    [`CREATE TABLE u (a String) ENGINE = MySQL('${sink}', 'd', 't', 'u', 'p')`, /497|164/],
    [`CREATE TABLE u (a String) ENGINE = Redis('${sink}') PRIMARY KEY a`, /497|164/],
    [`CREATE TABLE u (a String) ENGINE = Distributed('default', core, t)`, /497|164/],
    [`CREATE TABLE u (a String) ENGINE = Kafka('${sink}', 't', 'g', 'TSV')`, /497|164/],
    [`CREATE TABLE u AS file('${file}', LineAsString)`, /497|164/],
    [`CREATE TABLE u (a String DEFAULT file('${file}')) ENGINE = Memory`, /497|164/],
    [
      `CREATE TABLE u (a Int8) ENGINE = MergeTree ORDER BY a
      SETTINGS disk = disk(type = 'local', path = '${outside}/')`,
      /452|164/,
    ],
    [
      "CREATE TABLE u (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS storage_policy = 'x'",
      /452|164/,
    ],
    ["ALTER TABLE t MODIFY SETTING storage_policy = 'x'", /452|164/],
    [`ALTER TABLE t ADD COLUMN f String DEFAULT file('${file}')`, /497|164/],
    [`ALTER TABLE t UPDATE s = file('${file}') WHERE 1`, /497|164/],
    [`CREATE VIEW v AS SELECT * FROM file('${file}', LineAsString)`, /497|164/],
    [`CREATE VIEW v AS SELECT file('${file}')`, /497|164/],
    [
      `CREATE VIEW v (x String) SQL SECURITY DEFINER AS SELECT * FROM default.\`${file}\``,
      /497|164/,
    ],
    ['CREATE VIEW v SQL SECURITY DEFINER AS SELECT 1', /497|164/],
    [`CREATE VIEW v (x String) AS SELECT * FROM default.\`${file}\``, /497|164/],
    ['CREATE MATERIALIZED VIEW v ENGINE = Memory AS SELECT 1', /497|164/],
    [
      `CREATE MATERIALIZED VIEW v REFRESH EVERY 1 SECOND (x String) ENGINE = Memory
      AS SELECT * FROM default.\`${file}\``,
      /497|164/,
    ],
    [
      `CREATE TABLE u (s String, f UInt8 MATERIALIZED s IN default.\`${file}\`) ENGINE = Memory`,
      /497|164/,
    ],
    [`ALTER TABLE t UPDATE s = (SELECT * FROM default.\`${file}\`) WHERE 1`, /497|164/],
    [`ALTER TABLE t DELETE WHERE s IN default.\`${file}\``, /497|164/],
    [`CREATE DATABASE u ENGINE = Filesystem('${outside}')`, /497|164/],
    [`CREATE DATABASE u ENGINE = SQLite('${outside}/db')`, /497|164/],
    [`CREATE DATABASE u ENGINE = PostgreSQL('${sink}', 'd', 'u', 'p')`, /497|164/],
    [
      `CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(FILE(path '${file}' format 'TSV'))
      LAYOUT(FLAT()) LIFETIME(0)`,
      /497|164/,
    ],
    ['CREATE NAMED COLLECTION c AS a = 1', /497|164/],
  ];
}

/** INSERTs from or into other places, and rows that are expressions. */
function refusedInserts({ file, outside, sink }: Places): Refusal[] {
  const url = `http://${sink}/x`;
  // ClickHouse's codes if Values may hold plain values only.
  const noExpression = /^(344|164)$/;
  return [
    [`INSERT INTO FUNCTION file('${outside}/out', TSV, 'a Int8') SELECT 1`, /497|164/],
    [`INSERT INTO FUNCTION file('${outside}/out', TSV, 'a Int8') FORMAT TSV 1`, /497|164/],
    [
      `INSERT INTO FUNCTION null('a Int8, b String DEFAULT file(\\'${file}\\')') (a) FORMAT TSV 1`,
      /497|164/,
    ],
    [`INSERT INTO FUNCTION url('${url}', TSV, 'a Int8') VALUES (1)`, /497|164/],
    [`INSERT INTO FUNCTION remote('${sink}', core.t) SELECT 1`, /497|164/],
    [`INSERT INTO \`${outside}/out.tsv\` FORMAT TSV 1`, /60|497|164/],
    [`INSERT INTO t FROM INFILE '${file}' FORMAT LineAsString`, /497|164/],
    [`INSERT INTO t SELECT 2, file('${file}')`, /497|164/],
    [`INSERT INTO t VALUES (2, file('${file}'))`, noExpression],
    [`INSERT INTO t VALUES (2, \`file\`('${file}'))`, noExpression],
    [`INSERT INTO t VALUES (2, "\\x66ile"('${file}'))`, noExpression],
    [`INSERT INTO t VALUES (2, \u201cfile\u201d('${file}'))`, noExpression],
    [`INSERT INTO t VALUES (2, (SELECT * FROM '${file}'))`, noExpression],
    [`INSERT INTO t VALUES (2, (SELECT s FROM icebergLocal('${outside}')))`, noExpression],
    [`INSERT INTO t VALUES (2, toString('x' IN sqlite('${file}', 't')))`, noExpression],
    [`INSERT INTO t VALUES (2, (SELECT * FROM executable('x', TSV, 's String')))`, noExpression],
    [`INSERT INTO t VALUES (2, (SELECT * FROM url('${url}', TSV, 's String')))`, noExpression],
    ['INSERT INTO t SETTINGS max_threads = 1; SET ROLE loader FORMAT TSV 2\tx', /\d+/],
    ["INSERT INTO t SETTINGS profile = 'default' FORMAT TSV 2\tx", /452|164/],
    ['INSERT INTO t, u FORMAT TSV 2\tx', /62|164/],
    ['INSERT INTO t (a) SELECT 1; DROP TABLE t', /62|164/],
  ];
}

t.test('statements that reach out of the database are refused to every user', async (t) => {
  const { server, file, outside, sink, unharmed } = await openTarget(t);
  const answers: Answer[] = [];
  for (const [statement, code] of refusedToAll({ file, outside, sink })) {
    for (const user of ['core', 'analyst'] as const) {
      const answer = await post(server, user, statement, 'param_n=1000');
      answers.push(answer);
      t.ok(answer.status >= 400, `${user}: ${statement} is refused`, { found: answer });
      t.match(answer.code, code, `${user}: ${statement}`, { found: answer.text });
    }
  }
  await unharmed(t, answers);
});

t.test('a refused statement is refused in every notation', async (t) => {
  const { server, file, outside, sink, unharmed } = await openTarget(t);
  const forms: ((sql: string) => string)[] = [
    (sql) => sql.toLowerCase(),
    (sql) => sql.replaceAll(' ', '/**/ '),
    (sql) => sql.replaceAll(' ', ' /* /* */ SELECT */ '),
    (sql) => sql.replaceAll(' ', " -- it's\n"),
    (sql) => sql.replaceAll(' ', ' // `x\n'),
    (sql) => sql.replaceAll(' ', ' #! "x\n'),
    (sql) => sql.replaceAll(' ', '\u00a0'),
    (sql) => sql.replaceAll(' ', '\r\n\t\f\v '),
    (sql) => sql.replaceAll('(', ' /* */ ('),
    (sql) => sql.replace(/\b([a-zA-Z]\w*)\(/g, '`$1`('),
    (sql) => sql.replace(/\b([a-zA-Z]\w*)\(/g, '"$1" ('),
    (sql) => sql.replace(/\b([a-zA-Z]\w*)\(/g, '\u201c$1\u201d('),
    (sql) => sql.replace(/\bfile\(/g, '`\\x66ile`('),
    (sql) => sql.replace(/'([^'\\]*)'/g, '$$q$$$1$$q$$'),
    (sql) => sql.replace(/'([^'\\]*)'/g, '\u2018$1\u2019'),
    (sql) => `${sql};`,
    (sql) => `(${sql})`,
    (sql) => `/* SELECT 1 */ ${sql} -- x`,
    (sql) => `SELECT * FROM (${sql}) AS x SETTINGS extremes = 0`,
    (sql) => `\ufeff${sql}`,
  ];
  const answers: Answer[] = [];
  for (const [statement] of refusedToAll({ file, outside, sink })) {
    for (const form of forms) {
      const written = form(statement);
      const user = answers.length % 2 === 0 ? 'core' : 'analyst';
      const answer = await post(server, user, written, 'param_n=1000');
      answers.push(answer);
      if (answer.status < 400) t.fail(`${user}: ${written} is refused`, { found: answer });
    }
  }
  t.ok(answers.length > 2_000);
  await unharmed(t, answers);
});

t.test('placeholders and settings of a request', async (t) => {
  const { server, file, outside, unharmed } = await openTarget(t);
  const answers: Answer[] = [];
  const text = encodeURIComponent(file);
  const name = encodeURIComponent(`arrayMap({f:Identifier}, ['${file}'])`);
  for (const [query, body, code] of [
    ['param_f=file', `SELECT arrayMap({f:Identifier}, ['${file}'])`, '497'],
    ['param_f=%60file%60', `SELECT arrayMap({f:Identifier}, ['${file}'])`, '497'],
    [`param_f=file&query=SELECT+${name}`, '', '497'],
    [`database=default&param_f=${text}`, 'SELECT * FROM {f:Identifier}', '497'],
    [`database=default`, `SELECT * FROM '${file}'`, '497'],
    [
      `param_d=default&param_f=${text}`,
      'CREATE TABLE u (s String, f UInt8 DEFAULT s IN {d:Identifier}.{f:Identifier}) ENGINE = Memory',
      '497',
    ],
    ['database=default', `CREATE VIEW v (x String) AS SELECT * FROM '${file}'`, '497'],
    ['profile=default', 'SELECT 1', '452'],
    ['max_memory_usage=0', 'SELECT 1', '452'],
    ['max_memory_usage=99999999999999', 'SELECT 1', '452'],
    ['max_execution_time=+1', 'SELECT 1', '452'],
    ['max_threads=1000', 'SELECT 1', '452'],
    ['max_result_bytes=0', 'SELECT 1', '452'],
    ['dialect=kusto', 'SELECT 1', '452'],
    ['allow_experimental_eval_table_function=1', 'SELECT 1', '452'],
    [`output_format_schema=${encodeURIComponent(`${outside}/out`)}`, 'SELECT 1', '452'],
    [`format_schema=${text}`, 'SELECT 1', '452'],
    ['nope=1', 'SELECT 1', '115'],
    ['role=loader', `SELECT * FROM file('${file}', LineAsString)`, '497'],
  ] as const) {
    for (const user of ['core', 'analyst'] as const) {
      const answer = await post(server, user, body, query);
      answers.push(answer);
      // For a statement that writes, the analyst's refusal is READONLY.
      const refused = user === 'analyst' && body.startsWith('CREATE') ? '164' : code;
      t.equal(answer.code, refused, `${user}: ${query}`, { found: answer.text });
    }
  }
  for (const [query, body, said] of [
    ['max_threads=1', "SELECT getSetting('max_threads')", '1\n'],
    ['', "SELECT getSetting('max_threads') SETTINGS max_threads = 1", '1\n'],
    ['', "SELECT * FROM (SELECT getSetting('max_threads') SETTINGS max_threads = 1)", '1\n'],
    ['max_memory_usage=1000000000', "SELECT getSetting('max_memory_usage')", '1000000000\n'],
    ['readonly=2&max_result_rows=1', "SELECT getSetting('readonly')", '2\n'],
    ['param_t=t', 'SELECT s FROM {t:Identifier}', 'kept\n'],
    ['', 'SELECT count() FROM numbers(5)', '5\n'],
    ['', "SELECT sum(x) FROM values('x Int8', 1, 2)", '3\n'],
    ['', "SELECT * FROM values((1, 'x'))", '1\tx\n'],
    ['', "SELECT s FROM merge(core, '^t$')", 'kept\n'],
    ['', "SELECT engine = 'MergeTree' FROM system.tables WHERE name = 't'", '1\n'],
  ] as const) {
    for (const user of ['core', 'analyst'] as const) {
      const answer = await post(server, user, body, query);
      t.match(answer, { status: 200, text: said }, `${user}: ${query} ${body}`);
    }
  }
  for (const body of [
    "INSERT INTO t VALUES (2, concat('a', toString(1 + 1)))",
    "INSERT INTO t VALUES (3, 'SELECT file(1) FROM `x`')",
  ]) {
    t.equal((await post(server, 'core', body)).status, 200, body);
  }
  const stored = await post(server, 'core', 'SELECT s FROM t WHERE a > 1 ORDER BY a');
  t.equal(stored.text, 'a2\nSELECT file(1) FROM `x`\n');
  await post(server, 'core', 'ALTER TABLE t DELETE WHERE a > 1 SETTINGS mutations_sync = 2');
  const bounded = await post(server, 'analyst', 'SELECT * FROM numbers(10)', 'max_result_rows=5');
  t.equal(bounded.code, '396', 'a bound that the request sets is enforced');
  await unharmed(t, answers);
});

t.test('tools leave memory and time to Core', async (t) => {
  const { server, client, unharmed } = await openTarget(t);
  const setting = async (user: 'core' | 'analyst', name: string, query = '') =>
    Number((await post(server, user, `SELECT getSetting('${name}')`, query)).text);
  const serverBytes = Number(
    (await post(server, 'core', "SELECT getServerSetting('max_server_memory_usage')")).text,
  );
  const ratio = Number(
    (await post(server, 'core', "SELECT getServerSetting('max_server_memory_usage_to_ram_ratio')"))
      .text,
  );
  const engineBytes = serverBytes > 0 ? serverBytes : totalmem() * ratio;
  t.ok(engineBytes > 0);
  const analystBytes = await setting('analyst', 'max_memory_usage');
  t.ok(analystBytes * analystQueriesMax <= 0.51 * engineBytes, 'half of the engine at most', {
    analystBytes,
    engineBytes,
  });
  t.equal(await setting('analyst', 'max_query_size', 'max_query_size=1048576'), 1_048_576);
  const long = await post(server, 'analyst', 'SELECT 1', 'max_query_size=1048577');
  t.equal(long.code, '452', 'a statement of a tool may have at most a mebibyte');

  const tags = Array.from({ length: 1_500_000 }, (_, at) => `$${at}$`).join(' ');
  const answers = await Promise.all([
    post(server, 'analyst', `SELECT ${tags}`),
    post(server, 'analyst', `SELECT ${'('.repeat(15_000_000)}`),
    post(server, 'analyst', `SELECT ${'1,'.repeat(7_000_000)}1`, 'max_query_size=1048576'),
  ]);
  for (const answer of answers) {
    t.match(answer, { status: 400, code: '62', text: /Max query size exceeded/ });
  }
  const boundary = 'b-4b1f';
  const part = (at: number) =>
    `--${boundary}\r\nContent-Disposition: form-data; name="param_a${at}"\r\n\r\n1\r\n`;
  const form = await ask(server, '/?query=SELECT+1', {
    method: 'POST',
    headers: {
      ...userHeaders('analyst', server.passwords.analyst),
      'content-type': `multipart/form-data; boundary=${boundary}`,
    },
    body: `${Array.from({ length: 30_000 }, (_, at) => part(at)).join('')}--${boundary}--\r\n`,
  });
  t.equal(form.status, 413, 'the same for a form');
  await client.insert({ table: 't', values: [], format: 'JSONEachRow' });
  await unharmed(t, answers);
});

t.test('results do not fill the disk', async (t) => {
  const dataDir = t.testdir({});
  const bytesMax = 32 * 1024 ** 2;
  const server = await startClickHouseServer(t, dataDir, ['--result-bytes-max', String(bytesMax)]);
  // A megabyte in the engine's memory, and a hundred gigabytes as it is written.
  const wide = "SELECT toLowCardinality(repeat('x', 1000)) FROM numbers(100000000)";
  const refused = await post(server, 'analyst', wide, 'output_format_parallel_formatting=0');
  t.match(refused, { status: 400, code: '396', text: /Limit for result exceeded/ });
  t.same(readdirSync(path.join(dataDir, 'spool')), [], 'and its file is gone');

  // Results within their bound that their clients do not read.
  const large = `SELECT repeat('x', 1000) FROM numbers(${Math.floor(bytesMax / 1_100)})`;
  const unread: http.IncomingMessage[] = [];
  t.teardown(() => {
    for (const response of unread) response.destroy();
  });
  const ask30 = async () => {
    const headers = userHeaders('analyst', server.passwords.analyst);
    const request = http.request({ port: server.port, method: 'POST', headers, agent: false });
    request.end(large);
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    unread.push(response);
    return response.statusCode;
  };
  t.same([await ask30(), await ask30(), await ask30()], [200, 200, 200]);
  t.equal(await ask30(), 503, 'too many bytes wait for their clients');
  t.equal((await post(server, 'core', 'SELECT 1')).text, '1\n', 'Core is never refused');
  for (const response of unread.splice(0)) response.destroy();
  await until(
    () => post(server, 'analyst', 'SELECT 1'),
    ({ status }) => status === 200,
  );
  t.pass('the analyst is answered again once those clients are gone');
});

t.test('the analyst reads, and GET reads', async (t) => {
  const { server, file, unharmed } = await openTarget(t);
  const writes = [
    'INSERT INTO t VALUES (2, 2)',
    'INSERT INTO t FORMAT TSV 2\tx',
    'INSERT INTO t SELECT 2, toString(2)',
    'CREATE TABLE u (a Int8) ENGINE = Memory',
    'CREATE TEMPORARY TABLE u (a Int8)',
    'CREATE DATABASE u',
    'CREATE VIEW u AS SELECT 1',
    'DROP TABLE t',
    'DROP DATABASE core',
    'TRUNCATE TABLE t',
    'ALTER TABLE t DELETE WHERE 1',
    'DELETE FROM t WHERE 1',
    'RENAME TABLE t TO u',
    'OPTIMIZE TABLE t FINAL',
    'KILL QUERY WHERE 1',
    'SYSTEM STOP MERGES',
  ];
  const answers: Answer[] = [];
  for (const body of writes) {
    const answer = await post(server, 'analyst', body);
    answers.push(answer);
    t.match(answer, { status: 403, code: /164|497/ }, `analyst: ${body}`);
    for (const method of ['GET', 'HEAD']) {
      for (const user of ['core', 'analyst'] as const) {
        const headers = userHeaders(user, server.passwords[user]);
        const target = `/?query=${encodeURIComponent(body)}`;
        const got = await ask(server, target, { method, headers });
        answers.push(got);
        t.match(got, { status: 403, code: /164|497/ }, `${user}: ${method} ${body}`);
      }
    }
    const bound = await post(server, 'core', body, 'readonly=2');
    answers.push(bound);
    t.match(bound, { status: 403, code: /164|497/ }, `core, who asked for readonly: ${body}`);
  }
  for (const [body, said] of [
    ['SELECT s FROM t', /^kept$/m],
    ['WITH 1 AS x SELECT x', /^1$/m],
    ['SHOW TABLES', /^t$/m],
    ['SHOW CREATE TABLE t', /MergeTree/],
    ['DESCRIBE TABLE t', /UInt32/],
    ['EXISTS TABLE t', /^1$/m],
    ['EXPLAIN SELECT * FROM t', /ReadFromMergeTree/],
    ['USE core', /^$/],
    ['SET max_threads = 1', /^$/],
  ] as const) {
    t.match(await post(server, 'analyst', body), { status: 200, text: said }, body);
  }
  t.equal((await post(server, 'analyst', `SELECT '${file}'`)).text, `${file}\n`, 'a path is text');
  await unharmed(t, answers);
});

t.test(
  'as another user of the machine',
  { skip: root ? false : 'only root can be another' },
  async (t) => {
    const { server, folder, unharmed } = await openTarget(t);
    const program = `
    import { readdirSync, readFileSync } from 'node:fs';
    const [url, folder] = process.argv.slice(1);
    const seen = {};
    const tell = async (what, run) => {
      try { seen[what] = await run(); } catch (thrown) { seen[what] = thrown.code ?? String(thrown); }
    };
    const status = (target, init) => async () => (await fetch(url + target, init)).status;
    await tell('user', () => process.getuid());
    await tell('ping', status('/ping'));
    await tell('get', status('/?query=SELECT+1'));
    await tell('default', status('/?query=SELECT+1&user=default&password='));
    await tell('core', status('/?query=SELECT+1&user=core&password=core'));
    await tell('insert', status('/?query=INSERT+INTO+t+FORMAT+TSV', { method: 'POST', body: '2\\tx\\n' }));
    await tell('drop', status('/', { method: 'POST', body: 'DROP TABLE t' }));
    for (const name of ['secrets.json', 'config/users.xml']) {
      await tell(name, () => readFileSync(folder + '/' + name, 'utf8'));
    }
    for (const name of ['server', 'spool']) await tell(name, () => readdirSync(folder + '/' + name));
    console.log(JSON.stringify(seen));`;
    const child = spawn(
      process.execPath,
      ['--input-type=module', '-e', program, server.url, path.join(folder, 'data')],
      { uid: nobody, gid: nobody, cwd: '/', env: {}, stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let said = '';
    for await (const chunk of child.stdout.setEncoding('utf8')) said += chunk;
    t.same(JSON.parse(said), {
      user: nobody,
      ping: 200,
      get: 401,
      default: 401,
      core: 401,
      insert: 401,
      drop: 401,
      'secrets.json': 'EACCES',
      'config/users.xml': 'EACCES',
      server: 'EACCES',
      spool: 'EACCES',
    });
    const { pid } = server.child;
    const shown = ['cmdline', 'environ'].map((name) =>
      readFileSync(`/proc/${pid}/${name}`, 'utf8'),
    );
    const secrets = Object.values(server.passwords);
    t.notOk(
      shown.some((text) => secrets.some((secret) => text.includes(secret))),
      'no password is among the arguments or in the environment',
    );
    t.equal(statSync(path.join(folder, 'data', 'secrets.json')).mode & 0o077, 0);
    await unharmed(t, []);
  },
);

t.test('core sql runs as the analyst', async (t) => {
  const { server, folder, unharmed } = await openTarget(t);
  const core = async (sql: string) => {
    const child = spawn(process.execPath, [coreProgram, 'sql', sql], {
      env: {
        PATH: process.env['PATH'],
        CORE_DATA_DIR: path.join(folder, 'data'),
        CORE_CLICKHOUSE_PORT: String(server.port),
      },
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        said += chunk;
      });
    }
    await once(child, 'close');
    return said;
  };
  t.match(await core('SELECT s FROM t'), /^s\s+kept\n$/);
  t.match(
    await core('DROP TABLE t'),
    /^core: ClickHouse: analyst: Cannot execute query in readonly/,
  );
  t.match(await core("SELECT file('/etc/passwd')"), /ACCESS_DENIED/);
  await unharmed(t, []);
});

t.test('times are UTC in every time zone of the host', async (t) => {
  const dataDir = t.testdir({ logs: {} });
  const secrets = makeSecrets(dataDir);
  const [port = 0] = await freePorts(1);
  // The server inherits the environment of the process that starts it.
  t.intercept(process, 'env', { value: { ...process.env, TZ: 'Asia/Tehran' } });
  const signal = AbortSignal.timeout(60_000);
  const started = await startClickHouse({ dataDir, port }, createLogger('silent'), signal);
  t.teardown(() => started.stop());
  for (const [user, password] of [
    ['core', secrets.clickhouse],
    ['analyst', secrets.clickhouseAnalyst],
  ] as const) {
    const answer = await ask({ port }, '/', {
      method: 'POST',
      headers: userHeaders(user, password),
      body: `SELECT timezone(), toUnixTimestamp(toDateTime('2026-01-01 00:00:00')),
               toString(toDateTime(1767225600)), toStartOfHour(toDateTime(1767225600)),
               toString(now()) = formatDateTime(now(), '%F %T', 'UTC'),
               toUnixTimestamp(toStartOfDay(toDateTime(1767225600)))`,
    });
    t.equal(
      answer.text,
      'UTC\t1767225600\t2026-01-01 00:00:00\t2026-01-01 00:00:00\t1\t1767225600\n',
      user,
    );
    t.equal(answer.headers['x-clickhouse-timezone'], 'UTC');
  }
});
