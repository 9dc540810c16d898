import t from 'tap';
import { sqlName, sqlString } from '../../../src/clickhouse-sql.ts';
import { columnNames, parseStatement } from '../../../src/embedded/clickhouse/statement.ts';
import { tokenize, unquoteName } from '../../../src/embedded/clickhouse/tokens.ts';

t.test('an INSERT with its rows', async (t) => {
  const of = (sql: string) => {
    const statement = parseStatement(sql);
    if (statement.kind !== 'insert') return statement.kind;
    const { target, isFunction, columns, settings, format, dataStart } = statement;
    return [target, isFunction, columns, settings, format, sql.slice(dataStart)];
  };
  t.same(of('INSERT INTO t FORMAT RowBinary'), ['t', false, undefined, undefined, 'RowBinary', '']);
  t.same(of('insert into t format TSV\n\n1'), ['t', false, undefined, undefined, 'TSV', '\n1']);
  t.same(of('INSERT INTO t FORMAT TSV \r\n 1'), ['t', false, undefined, undefined, 'TSV', ' 1']);
  t.same(of('-- why\nINSERT /* x */ INTO TABLE `a`."b" (x, `y)`) VALUES (\'1\')'), [
    '`a`."b"',
    false,
    'x, `y)`',
    undefined,
    'Values',
    " ('1')",
  ]);
  t.same(of("INSERT INTO t SETTINGS a = 1, b = 'FORMAT' FORMAT CSV 1"), [
    't',
    false,
    undefined,
    "a = 1, b = 'FORMAT'",
    'CSV',
    '1',
  ]);
  t.same(of("INSERT INTO FUNCTION null ('a Int8') (a) FORMAT CSV 1"), [
    "null ('a Int8')",
    true,
    'a',
    undefined,
    'CSV',
    '1',
  ]);
  t.same(of('INSERT INTO t FORMAT RowBinary\n\0\'"`/*'), [
    't',
    false,
    undefined,
    undefined,
    'RowBinary',
    '\0\'"`/*',
  ]);
  t.equal(of('INSERT INTO t SELECT 1'), 'other');
  t.equal(of('INSERT INTO t (a) WITH 1 AS x SELECT x'), 'other');
  t.equal(of('INSERT INTO t'), 'other');
  t.equal(of('INSERT'), 'other');
});

t.test('heredocs', async (t) => {
  const texts = (sql: string) => [...tokenize(sql)].map((token) => token.text);
  t.same(texts('$$a b$$ c'), ['$$a b$$', 'c']);
  t.same(texts('$x$ $y$ $x$ $y$'), ['$x$ $y$ $x$', '$y$']);
  t.same(texts('$x$a$x$ $x$b$x$'), ['$x$a$x$', '$x$b$x$']);
  t.same(texts('$x$ $X$'), ['$x$', '$X$'], 'a tag in another case closes nothing');
  t.same(texts('$a$b$a$'), ['$a$b$a$'], 'the mark before a tag may end another one');
  t.same(texts("$a$ '$a$'"), ["$a$ '$a$", "'"]);
  // A search through the rest of the text for each of them would take hours.
  const tags = Array.from({ length: 400_000 }, (_, at) => `$${at}$`);
  t.equal(texts(tags.join(' ')).length, tags.length, 'none of many is closed');
  t.match(parseStatement(`SELECT ${tags.join(' ')}`), { kind: 'select' });
});

t.test('a SELECT and its FORMAT', async (t) => {
  const of = (sql: string) => {
    const statement = parseStatement(sql);
    if (statement.kind !== 'select') return statement.kind;
    const { into, end, format } = statement;
    return [sql.slice(0, into), sql.slice(into, end), format];
  };
  t.same(of('SELECT 1'), ['SELECT 1', '', undefined]);
  t.same(of('SELECT 1; -- end'), ['SELECT 1', '', undefined]);
  t.same(of('SELECT 1 FORMAT JSON'), ['SELECT 1 ', 'FORMAT JSON', 'JSON']);
  t.same(of('SELECT 1 FORMAT TSV SETTINGS a = 1, b = -2.5, c = {x: [1]};'), [
    'SELECT 1 ',
    'FORMAT TSV SETTINGS a = 1, b = -2.5, c = {x: [1]}',
    'TSV',
  ]);
  t.same(of('SELECT 1 AS format FROM t SETTINGS a = 1'), [
    'SELECT 1 AS format FROM t SETTINGS a = 1',
    '',
    undefined,
  ]);
  t.same(of('SELECT format FROM t'), ['SELECT format FROM t', '', undefined]);
  t.same(of("SELECT ' FORMAT TSV', `FORMAT`, $a$; FORMAT x$a$"), [
    "SELECT ' FORMAT TSV', `FORMAT`, $a$; FORMAT x$a$",
    '',
    undefined,
  ]);
  t.same(of("SELECT 'it''s', '\\';' FORMAT CSV"), ["SELECT 'it''s', '\\';' ", 'FORMAT CSV', 'CSV']);
  t.same(of('(SELECT 1) UNION ALL (SELECT 2)'), ['(SELECT 1) UNION ALL (SELECT 2)', '', undefined]);
  t.same(of('WITH 1 AS x SELECT x'), ['WITH 1 AS x SELECT x', '', undefined]);
  t.equal(of("SELECT 1 INTO OUTFILE 'x'"), 'other');
  t.equal(of('SHOW TABLES FORMAT JSON'), 'other');
});

t.test('other statements', async (t) => {
  t.same(parseStatement(' -- nothing\n'), { kind: 'empty' });
  t.same(parseStatement(';;'), { kind: 'several', offset: 1 });
  t.same(parseStatement('SELECT 1; SELECT 2'), { kind: 'several', offset: 10 });
  t.match(parseStatement('CREATE TABLE t (a Int8)'), { kind: 'other', verb: 'CREATE' });
  t.match(parseStatement("SELECT 'never ends"), { kind: 'select', end: 18 });
  t.match(parseStatement(`SELECT '${'\\'.repeat(100_001)}`), { kind: 'select' });
  t.same(columnNames('a, `b ``c`, "d\\"e", n.x'), ['a', 'b `c', 'd"e', 'n.x']);
  t.equal(columnNames('* EXCEPT (a)'), undefined);
  t.equal(columnNames('a b'), undefined);
  for (const name of ['plain', 'back`tick', 'back\\slash', "quo'te"]) {
    t.equal(unquoteName(sqlName(name)), name);
  }
  t.equal(sqlString("it's \\"), "'it\\'s \\\\'");
});
