import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { type ClickHouseClient, ClickHouseError, createClient } from '@clickhouse/client';
import t, { type Test } from 'tap';
import { projectRoot } from '../../../src/root.ts';
import {
  type ClickHouseServer,
  connectClickHouse,
  serverFile,
  serverFolders,
  startClickHouseServer,
} from '../../support/clickhouse-server.ts';

const migration = readFileSync(path.join(projectRoot, 'clickhouse', '000001-init.sql'), 'utf8');

const start = (test: Test, dataDir: string, ...more: string[]) =>
  startClickHouseServer(test, dataDir, more);

const connect = (test: Test, server: ClickHouseServer, database = 'core') =>
  connectClickHouse(test, server, { database });

async function migrate(client: ClickHouseClient): Promise<void> {
  for (const query of migration.split(';').filter((part) => part.trim() !== '')) {
    await client.command({ query });
  }
}

async function rowsOf<T>(client: ClickHouseClient, query: string): Promise<T[]> {
  return (await client.query({ query, format: 'JSONEachRow' })).json<T>();
}

async function countOf(client: ClickHouseClient, table: string): Promise<number> {
  const rows = await rowsOf<{ n: string }>(client, `SELECT count() AS n FROM ${table}`);
  return Number(rows[0]?.n);
}

async function refusal(promise: Promise<unknown>): Promise<{ code: string; type: string }> {
  try {
    await promise;
  } catch (thrown) {
    if (thrown instanceof ClickHouseError) return { code: thrown.code, type: thrown.type ?? '' };
    throw thrown;
  }
  throw new Error('This should have been refused');
}

const usageRowBytes = 4 + 5 * 8 + 4 + 8;
const october = 1_760_000_000;
const november = 1_763_000_000;

/** Packed rows of the table `usage`, all recorded in the seconds from `from` on. */
function usageRows(rows: number, from: number, segment = 1n): Buffer {
  const packed = Buffer.alloc(rows * usageRowBytes);
  for (let row = 0, at = 0; row < rows; row += 1) {
    at = packed.writeUInt32LE(row % 1000, at);
    for (const value of [row, row % 5000, row % 7000, row * 10, row * 13]) {
      at = packed.writeBigUInt64LE(BigInt(value), at);
    }
    at = packed.writeUInt32LE(from + (row % 60), at);
    at = packed.writeBigUInt64LE(segment, at);
  }
  return packed;
}

async function insertBinary(
  client: ClickHouseClient,
  table: string,
  rows: Buffer,
  token?: string,
): Promise<void> {
  const { stream } = await client.exec({
    query: `INSERT INTO ${table} FORMAT RowBinary`,
    values: Readable.from([rows], { objectMode: false }),
    ...(token === undefined ? {} : { clickhouse_settings: settingsOf(token) }),
  });
  stream.resume();
  await once(stream, 'end');
}

/** The settings of Core's own inserts. */
function settingsOf(token: string) {
  return {
    async_insert: 0 as const,
    insert_deduplicate: 1 as const,
    insert_deduplication_token: token,
    max_insert_block_size: '1048576',
    min_insert_block_size_rows: '1048576',
    min_insert_block_size_bytes: '0',
    max_insert_threads: '1',
    wait_end_of_query: 1 as const,
  };
}

interface Front {
  server: ClickHouseServer;
  client: ClickHouseClient;
  ask(target: string, init?: RequestInit): Promise<Response>;
}

t.test('answers as a ClickHouse server does', async (t) => {
  const server = await start(t, t.testdir(), '--queries-max', '6');
  const client = connect(t, server);
  const ask = (target: string, init?: RequestInit) =>
    fetch(`${server.url}${target}`, { ...init, headers: { ...server.headers, ...init?.headers } });
  const front = { server, client, ask };

  t.test('ping', (t) => answersPing(t, front));
  t.test('typed errors with their HTTP status', (t) => answersTypedErrors(t, front));
  t.test('headers, formats and compression of answers', (t) => answersInFormats(t, front));
  t.test('query parameters, in the URL and as multipart', (t) => takesParameters(t, front));
  t.test('nothing of a request is left for the next', (t) => leavesNothingBehind(t, front));
  t.test('twenty queries at once, each with its own settings', (t) => runsTwentyQueries(t, front));
  t.test('databases side by side', (t) => keepsDatabasesApart(t, front));
  t.test('a large result, and one over its bound', (t) => boundsResults(t, front));
  t.test('a query ends when its client goes away', (t) => cancelsForGoneClients(t, front));
});

async function answersPing(t: Test, { client, ask }: Front): Promise<void> {
  t.same(await client.ping(), { success: true });
  t.same(await client.ping({ select: true }), { success: true });
  for (const target of ['/', '/ping', '/replicas_status']) {
    const response = await ask(target);
    t.equal(response.status, 200);
    t.equal(await response.text(), 'Ok.\n');
  }
  // The URL of Core names the database by its path; this server does not.
  const asPath = await ask('/core');
  t.equal(asPath.status, 404);
  t.match(await asPath.text(), /no handle \/core\. .*\?database=NAME/);
  t.equal((await ask('/', { method: 'PUT', body: 'x' })).status, 405);
}

async function answersTypedErrors(t: Test, { client, ask }: Front): Promise<void> {
  const typed = await refusal(client.query({ query: 'SELECT * FROM missing' }));
  t.same(typed, { code: '60', type: 'UNKNOWN_TABLE' });
  t.equal((await refusal(client.command({ query: 'SELEC 1' }))).code, '62');
  t.same(await refusal(client.insert({ table: 'missing', values: [{ a: 1 }] })), {
    code: '60',
    type: 'UNKNOWN_TABLE',
  });
  const several = client.query({ query: 'SELECT 1; SELECT 2', format: 'TabSeparated' });
  t.equal((await refusal(several)).code, '62');
  const late = 'SELECT throwIf(number = 900000) FROM numbers(1000000)';
  t.equal((await refusal(client.query({ query: late, format: 'TabSeparated' }))).code, '395');

  const response = await ask('/?query=SELECT+nope&query_id=my-id');
  t.equal(response.status, 404);
  t.equal(response.headers.get('x-clickhouse-exception-code'), '47');
  t.equal(response.headers.get('x-clickhouse-query-id'), 'my-id');
  t.match(await response.text(), /^Code: 47\. DB::Exception: .*\(UNKNOWN_IDENTIFIER\)\n$/s);
  t.equal((await ask('/', { method: 'POST', body: 'SELEC' })).status, 400);
  t.notMatch(await (await ask('/', { method: 'POST', body: 'SELECT 1 x y' })).text(), /spool/);
  t.equal((await ask('/?query=CREATE+TABLE+g(a+Int8)ENGINE=Memory')).status, 403, 'GET writes');
  t.equal((await ask('/?query=INSERT+INTO+g+VALUES(1)')).status, 403, 'GET inserts');
  const page = await ask('/?query=SELECT+1', { headers: { origin: 'http://elsewhere' } });
  t.equal(page.status, 403, 'a web page');
}

async function answersInFormats(t: Test, { server, ask }: Front): Promise<void> {
  const response = await ask('/?query=SELECT+1+AS+a&query_id=q1&default_format=JSONEachRow');
  t.equal(await response.text(), '{"a":1}\n');
  t.equal(response.headers.get('x-clickhouse-query-id'), 'q1');
  t.equal(response.headers.get('x-clickhouse-format'), 'JSONEachRow');
  t.equal(JSON.parse(response.headers.get('x-clickhouse-summary') ?? '').result_rows, '1');
  const named = await ask('/', {
    method: 'POST',
    body: "SELECT 'FORMAT' AS format FORMAT TSVWithNames SETTINGS max_threads = 1; -- end",
  });
  t.equal(named.headers.get('x-clickhouse-format'), 'TSVWithNames');
  t.equal(await named.text(), 'format\nFORMAT\n');

  const zipped = await ask('/?enable_http_compression=1&query=SELECT+1', {
    headers: { 'accept-encoding': 'gzip' },
  });
  t.equal(zipped.headers.get('content-encoding'), 'gzip');
  t.equal(await zipped.text(), '1\n');
  const compressing = createClient({
    url: server.url,
    username: 'core',
    password: server.passwords.core,
    compression: { request: true, response: true },
  });
  t.teardown(() => compressing.close());
  t.same(await rowsOf(compressing, 'SELECT 7 AS seven'), [{ seven: 7 }]);
}

async function takesParameters(t: Test, { client }: Front): Promise<void> {
  const text = "tab\t quote' back\\ line\n Ünïcode {x}";
  for (const multipart of [false, true]) {
    const result = await client.query({
      query: 'SELECT {s:String} AS s, {n:UInt64} AS n, {list:Array(String)} AS list, {d:Date} AS d',
      query_params: { s: text, n: '18446744073709551615', list: ['a', "b'"], d: '2025-10-09' },
      format: 'JSONEachRow',
      clickhouse_settings: { output_format_json_quote_64bit_integers: 1 },
      use_multipart_params: multipart,
    });
    t.same(await result.json(), [
      { s: text, n: '18446744073709551615', list: ['a', "b'"], d: '2025-10-09' },
    ]);
  }
  const unset = client.query({ query: 'SELECT {s:String}' });
  t.equal((await refusal(unset)).code, '456', 'nothing is left of a former request');
}

async function leavesNothingBehind(t: Test, { client }: Front): Promise<void> {
  const threads = async (more: object) => {
    const result = await client.query({
      query: "SELECT getSetting('max_threads') AS n, currentDatabase() AS d",
      format: 'JSONEachRow',
      ...more,
    });
    return (await result.json<{ n: number; d: string }>())[0]?.n;
  };
  const before = await threads({});
  t.equal(await threads({ clickhouse_settings: { max_threads: 7 } }), 7);
  t.equal(await threads({}), before);
  const failing = client.query({
    query: 'SELECT nope',
    clickhouse_settings: { max_threads: 9 },
  });
  t.equal((await refusal(failing)).code, '47');
  await client.command({ query: 'SET max_threads = 5' });
  await client.command({ query: 'USE system' });
  t.equal(await threads({}), before, 'also after an error, SET and USE');
  t.equal((await refusal(threads({ clickhouse_settings: { nope: 1 } }))).code, '115');
  t.equal(await threads({}), before);
}

async function runsTwentyQueries(t: Test, { client }: Front): Promise<void> {
  const answers = await Promise.all(
    Array.from({ length: 20 }, async (_, n) => {
      const result = await client.query({
        query: `SELECT {n:UInt32} AS n, getSetting('max_block_size') AS b, sleep(0.02) AS s,
                (SELECT sum(number) FROM numbers({n:UInt32})) AS sum`,
        query_params: { n },
        clickhouse_settings: { max_block_size: String(1000 + n) },
        format: 'JSONEachRow',
      });
      return (await result.json<{ n: number; b: string | number; sum: string | number }>())[0];
    }),
  );
  answers.forEach((answer, n) => {
    t.same([answer?.n, Number(answer?.b), Number(answer?.sum)], [n, 1000 + n, (n * (n - 1)) / 2]);
  });
}

async function keepsDatabasesApart(t: Test, { server, client }: Front): Promise<void> {
  await client.command({ query: 'CREATE DATABASE one' });
  await client.command({ query: 'CREATE DATABASE `t"wo`' });
  const names = ['one', 't"wo'];
  const clients = names.map((database) => connect(t, server, database));
  for (const [n, one] of clients.entries()) {
    await one.command({ query: 'CREATE TABLE t (v UInt8) ENGINE = MergeTree ORDER BY v' });
    await one.insert({ table: 't', values: [{ v: n }], format: 'JSONEachRow' });
  }
  for (const [n, one] of clients.entries()) {
    t.same(await rowsOf(one, 'SELECT v, currentDatabase() AS d FROM t'), [{ v: n, d: names[n] }]);
  }
  t.same(await rowsOf(client, 'SELECT v FROM one.t'), [{ v: 0 }]);
  const missing = connect(t, server, 'missing');
  t.equal((await refusal(missing.query({ query: 'SELECT 1' }))).code, '81');
}

async function boundsResults(t: Test, { client }: Front): Promise<void> {
  const result = await client.query({
    query: 'SELECT number FROM numbers(1000000)',
    format: 'TabSeparated',
  });
  let bytes = 0;
  for await (const rows of result.stream()) for (const row of rows) bytes += row.text.length + 1;
  t.equal(bytes, 6_888_890);
  const bounded = client.query({
    query: 'SELECT number FROM numbers(1000000)',
    clickhouse_settings: { max_result_bytes: '1000000' },
  });
  t.equal((await refusal(bounded)).code, '396');
}

async function cancelsForGoneClients(t: Test, { server, client }: Front): Promise<void> {
  const endless = 'SELECT sum(sipHash64(number)) FROM numbers(100000000000)';
  const gone = new AbortController();
  const asked = Array.from({ length: 8 }, () =>
    client.query({ query: endless, abort_signal: gone.signal }).catch(() => 'aborted'),
  );
  await connect(t, server, 'one').insert({
    table: 't',
    values: [{ v: 9 }],
    format: 'JSONEachRow',
  });
  t.pass('an insert has a place of its own, whatever queries run');
  gone.abort();
  t.same(new Set(await Promise.all(asked)), new Set(['aborted']));
  t.same(await rowsOf(client, 'SELECT 1 AS one'), [{ one: 1 }]);
}

const strings = ['\0\n"', 'a\tb\\n', "it's", '', 'Ü'.repeat(300)];
const max = '18446744073709551615';
const events = strings.map((ip_address, n) => ({
  segment: n === 0 ? max : String(n),
  node_id: 4294967295 - n,
  user_id: n === 0 ? '9223372036854775808' : '1',
  protocol: ['VLESS', 'VMESS', 'TROJAN', 'SHADOWSOCKS', 'MTPROTO'][n],
  event_type: n % 2 === 0 ? 'ONLINE' : 'OFFLINE',
  occurred_at: `2025-10-09 08:53:2${n}.00${n}`,
  ip_address,
}));
const readEvents = (client: ClickHouseClient) =>
  rowsOf(
    client,
    'SELECT * FROM session_events ORDER BY occurred_at SETTINGS output_format_json_quote_64bit_integers = 1',
  );
/** Checks that the table holds the events, and empties it. */
async function checkEvents(t: Test, client: ClickHouseClient, how: string): Promise<void> {
  t.same(await readEvents(client), events, how);
  await client.command({ query: 'TRUNCATE TABLE session_events' });
}

t.test('inserts keep every byte', async (t) => {
  const dataDir = t.testdir();
  const server = await start(t, dataDir);
  const client = connect(t, server);
  await migrate(client);
  const table = { server, client };

  t.test('JSONEachRow', (t) => insertsJson(t, table));
  t.test('TSV and CSV, as text, in chunks and gzipped', (t) => insertsText(t, table));
  t.test('RowBinary', (t) => insertsRowBinary(t, table));
  t.test('VALUES, defaults, column lists and table functions', (t) => insertsValues(t, table));
  t.test('a body over the bound', (t) => boundsBodies(t));
  t.test('a client that goes away half-way inserts nothing', (t) => dropsHalfInserts(t, table));
  t.same(readdirSync(path.join(dataDir, 'spool')), [], 'no file is left');
});

async function insertsJson(t: Test, { client }: Pick<Front, 'server' | 'client'>): Promise<void> {
  const inserted = await client.insert({
    table: 'session_events',
    values: events,
    format: 'JSONEachRow',
    clickhouse_settings: settingsOf('json'),
  });
  t.equal(inserted.summary?.written_rows, '5');
  await checkEvents(t, client, 'from an array');
}

async function insertsText(
  t: Test,
  { server, client }: Pick<Front, 'server' | 'client'>,
): Promise<void> {
  const escaped = (text: string) =>
    text
      .replaceAll('\\', '\\\\')
      .replaceAll('\t', '\\t')
      .replaceAll('\n', '\\n')
      .replaceAll('\0', '\\0');
  const tsv = events.map(
    (row) =>
      `${Object.values(row)
        .map((v) => escaped(String(v)))
        .join('\t')}\n`,
  );
  const post = (target: string, body: string | Buffer | ReadableStream, headers = {}) =>
    fetch(`${server.url}${target}`, {
      method: 'POST',
      body,
      headers: { ...server.headers, ...headers },
      duplex: 'half',
    } as RequestInit);
  const into = '/?query=INSERT+INTO+session_events+FORMAT+TSV';
  t.equal((await post(into, tsv.join(''))).status, 200);
  await checkEvents(t, client, 'query in the URL');
  t.equal((await post('/', `INSERT INTO session_events FORMAT TSV\n${tsv.join('')}`)).status, 200);
  await checkEvents(t, client, 'all in the body');
  t.equal(
    (await post('/?query=INSERT+INTO', `session_events FORMAT TSV ${tsv.join('')}`)).status,
    200,
  );
  await checkEvents(t, client, 'split');
  const chunks = ReadableStream.from(tsv.map((line) => Buffer.from(line)));
  t.equal((await post(into, chunks)).status, 200);
  await checkEvents(t, client, 'chunked');
  const zipped = await post(into, gzipSync(tsv.join('')), { 'content-encoding': 'gzip' });
  t.equal(zipped.status, 200);
  await checkEvents(t, client, 'gzipped');
  t.equal((await post(into, 'nonsense', { 'content-encoding': 'gzip' })).status, 400);
  t.equal((await post(into, 'nonsense', { 'content-encoding': 'zstd' })).status, 501);
  t.equal((await post(into, '1\tnonsense\n')).status, 400);
  t.equal((await post(into, '')).status, 200, 'no rows');
  t.equal(await countOf(client, 'session_events'), 0);
}

async function insertsRowBinary(
  t: Test,
  { client }: Pick<Front, 'server' | 'client'>,
): Promise<void> {
  const packed = Buffer.concat(
    events.map((row) => {
      const text = Buffer.from(row.ip_address);
      const fixed = Buffer.alloc(8 + 4 + 8 + 1 + 1 + 8);
      let at = fixed.writeBigUInt64LE(BigInt(row.segment), 0);
      at = fixed.writeUInt32LE(row.node_id, at);
      at = fixed.writeBigUInt64LE(BigInt(row.user_id), at);
      const protocols = ['VLESS', 'VMESS', 'TROJAN', 'SHADOWSOCKS', 'HYSTERIA2', 'MTPROTO'];
      at = fixed.writeInt8(protocols.indexOf(row.protocol ?? '') + 1, at);
      at = fixed.writeInt8(row.event_type === 'ONLINE' ? 1 : 2, at);
      fixed.writeBigInt64LE(BigInt(Date.parse(`${row.occurred_at.replace(' ', 'T')}Z`)), at);
      const length =
        text.length < 128 ? [text.length] : [(text.length & 127) | 128, text.length >> 7];
      return Buffer.concat([fixed, Buffer.from(length), text]);
    }),
  );
  await insertBinary(client, 'session_events', packed, 'binary');
  await checkEvents(t, client, 'from a stream');
  const cut = insertBinary(client, 'session_events', packed.subarray(0, packed.length - 3));
  t.match(await refusal(cut), { code: /^(32|33)$/ });
  t.equal(await countOf(client, 'session_events'), 0, 'a body cut short inserts nothing');
}

async function insertsValues(t: Test, { client }: Pick<Front, 'server' | 'client'>): Promise<void> {
  await client.command({
    query: `CREATE TABLE d (a UInt8, b String DEFAULT concat('x', toString(a)), c UInt8 MATERIALIZED a + 1,
            \`odd \\\` name\` Array(Tuple(x Int8, y String)) COMMENT 'it''s') ENGINE = MergeTree ORDER BY a`,
  });
  await client.command({
    query: "INSERT INTO d (a, b) VALUES (1, 'one'), (1 + 1, 'two; or not');",
  });
  await client.insert({ table: 'd', values: [{ a: 3 }], format: 'JSONEachRow' });
  await client.insert({
    table: 'd',
    values: [{ a: 4, 'odd ` name': [{ x: 1, y: 'y' }] }],
    columns: ['a', '`odd \\` name`'],
    format: 'JSONEachRow',
  });
  await client.command({ query: 'INSERT INTO core.d (a) SETTINGS max_threads = 1 FORMAT CSV 5' });
  await client.command({ query: 'INSERT INTO d (a) SELECT 6' });
  await client.command({ query: "INSERT INTO FUNCTION null('a UInt8') FORMAT TSV 5" });
  t.same(await rowsOf(client, 'SELECT a, b, c, `odd \\` name` AS o FROM d ORDER BY a'), [
    { a: 1, b: 'one', c: 2, o: [] },
    { a: 2, b: 'two; or not', c: 3, o: [] },
    { a: 3, b: 'x3', c: 4, o: [] },
    { a: 4, b: 'x4', c: 5, o: [{ x: 1, y: 'y' }] },
    { a: 5, b: 'x5', c: 6, o: [] },
    { a: 6, b: 'x6', c: 7, o: [] },
  ]);
  const unknown = client.insert({ table: 'd', values: [{ a: 1 }], columns: ['nope'] });
  t.equal((await refusal(unknown)).code, '16');
}

async function boundsBodies(t: Test): Promise<void> {
  const other = await start(t, t.testdir(), '--body-bytes-max', '1000');
  const small = connect(t, other);
  await small.command({ query: 'CREATE TABLE t (s String) ENGINE = MergeTree ORDER BY s' });
  const into = `${other.url}/?query=INSERT+INTO+t+FORMAT+TSV`;
  const line = `${'x'.repeat(99)}\n`;
  const post = async (body: string | Buffer | ReadableStream, headers = {}) => {
    const init = {
      method: 'POST',
      body,
      headers: { ...other.headers, ...headers },
      duplex: 'half',
    };
    const response = await fetch(into, init as RequestInit);
    await response.text();
    return response.status;
  };
  t.equal(await post(line.repeat(10)), 200);
  t.equal(await post(line.repeat(11)), 413);
  t.equal(await post(ReadableStream.from([Buffer.from(line.repeat(11))])), 413, 'chunked');
  t.equal(await post(gzipSync(line.repeat(11)), { 'content-encoding': 'gzip' }), 413, 'unpacked');
  t.equal(await countOf(small, 't'), 10);
  t.equal(await other.stop(), 0);
}

async function dropsHalfInserts(
  t: Test,
  { server, client }: Pick<Front, 'server' | 'client'>,
): Promise<void> {
  const request = http.request(`${server.url}/?query=INSERT+INTO+session_events+FORMAT+TSV`, {
    method: 'POST',
    headers: { ...server.headers, 'content-length': 1000 },
  });
  request.on('error', () => undefined);
  await new Promise((resolve) =>
    request.write('1\t1\t1\tVLESS\tONLINE\t2025-10-09 00:00:00\tx\n', resolve),
  );
  request.destroy();
  t.equal(await countOf(client, 'session_events'), 0);
}

t.test(
  'an insert makes one part per partition, once per token, also after a restart',
  async (t) => {
    const dataDir = t.testdir();
    let server = await start(t, dataDir);
    let client = connect(t, server);
    await migrate(client);
    const parts = () =>
      rowsOf<{ partition: string; rows: number }>(
        client,
        `SELECT partition, toUInt32(rows) AS rows FROM system.parts
       WHERE database = 'core' AND table = 'usage' AND active AND level = 0 ORDER BY partition`,
      );
    const oneMonth = usageRows(500_000, october);
    await insertBinary(client, 'usage', oneMonth, 'first');
    t.same(await parts(), [{ partition: '202510', rows: 500_000 }]);
    await insertBinary(client, 'usage', oneMonth, 'first');
    await insertBinary(client, 'usage', usageRows(3, october, 2n), 'first');
    t.same(
      await parts(),
      [{ partition: '202510', rows: 500_000 }],
      'a known token inserts nothing',
    );

    const months = [usageRows(1000, october, 3n), usageRows(2000, november, 3n)];
    const mixed = Buffer.concat(months);
    await insertBinary(client, 'usage', mixed, 'second');
    await insertBinary(client, 'usage', mixed, 'second');
    const count = () => countOf(client, 'usage');
    t.equal(await count(), 503_000, 'two partitions in one insert');
    await insertBinary(client, 'usage', usageRows(10, november, 4n), 'third');
    await insertBinary(client, 'usage', usageRows(10, november, 4n), 'fourth');
    t.equal(await count(), 503_020, 'another token is another insert');

    t.equal(await server.stop(), 0, 'a clean stop');
    server = await start(t, dataDir);
    client = connect(t, server);
    t.equal(await count(), 503_020, 'the data is there after a restart');
    await insertBinary(client, 'usage', oneMonth, 'first');
    await insertBinary(client, 'usage', mixed, 'second');
    t.equal(await count(), 503_020, 'the tokens are there, too');
    t.equal(await server.stop(), 0);
  },
);

t.test('kill -9 leaves a data directory that opens, with what was acknowledged', async (t) => {
  const dataDir = t.testdir();
  let acknowledged = 0;
  for (let round = 0; round < 3; round += 1) {
    const server = await start(t, dataDir);
    const client = connect(t, server);
    await migrate(client);
    const stored = await countOf(client, 'usage');
    t.ok(stored >= acknowledged * 1000, 'every insert that was acknowledged');
    t.equal(stored % 1000, 0, 'no insert is there in part');
    t.same(readdirSync(path.join(dataDir, 'spool')), [], 'no file is left');
    const inserts = Array.from({ length: 40 }, async (_, n) => {
      const token = `${round}-${n}`;
      await insertBinary(client, 'usage', usageRows(1000, october, BigInt(n)), token);
      acknowledged += 1;
      if (n === 5 + 10 * round) server.child.kill('SIGKILL');
    });
    await Promise.allSettled(inserts);
    t.equal(await server.stop('SIGKILL'), 'SIGKILL');
    writeFileSync(path.join(dataDir, 'spool', 'left-over'), 'x');
  }
  const server = await start(t, dataDir);
  t.ok((await countOf(connect(t, server), 'usage')) >= acknowledged * 1000);
  t.ok(acknowledged >= 3);
});

t.test('the server stops by SIGTERM, and says why it cannot start', async (t) => {
  const dataDir = t.testdir();
  const server = await start(t, dataDir);
  server.child.kill('SIGINT');
  t.same(await connect(t, server).ping(), { success: true }, 'only the parent acts on SIGINT');

  const fails = async (...args: string[]) => {
    const child = spawn(process.execPath, [serverFile, ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const [code] = await once(child, 'close');
    return { code, line: text.trimEnd().split('\n').at(-1) ?? '' };
  };
  const elsewhere = path.join(t.testdirName, 'elsewhere');
  mkdirSync(elsewhere);
  const taken = await fails(
    ...['--port', String(server.port), '--data', elsewhere, '--secrets', dataDir],
  );
  t.match(taken, { code: 1, line: /The port is taken/ });
  const locked = await fails('--port', '0', ...serverFolders(dataDir));
  t.match(locked, { code: 1, line: /cannot start/ });
  const pattern = await fails('--port', '0', '--data', path.join(dataDir, '{a}'));
  t.match(pattern, { code: 1, line: /must not contain/ });
  t.match(await fails('--port', '0'), { code: 1, line: /--data is missing/ });

  const client = connect(t, server);
  const running = rowsOf(
    client,
    'SELECT sum(sleepEachRow(0.1)) AS s FROM numbers(8) SETTINGS max_block_size = 1',
  );
  const seen =
    "SELECT count() AS n FROM system.processes WHERE query LIKE '%sleepEachRow%' AND query NOT LIKE '%processes%'";
  for (let tries = 0; tries < 100; tries += 1) {
    const [row] = await rowsOf<{ n: string }>(client, seen);
    if (Number(row?.n) > 0) break;
  }
  const stopped = server.stop();
  t.same(await running, [{ s: 0 }], 'what runs is answered');
  t.equal(await stopped, 0);

  const orphan = await start(t, dataDir);
  const ended = once(orphan.child, 'exit');
  orphan.child.disconnect();
  t.same(await ended, [0, null], 'it does not outlive its parent');
});
